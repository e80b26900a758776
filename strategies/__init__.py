"""Strategies of split-federated learning: one file each, found by its name."""

from flsplit.server.federation import Federation, SideState
from flsplit.server.strategy import Strategy, available, build

__all__ = ["Federation", "SideState", "Strategy", "available", "build"]
