"""Strategies of split-federated learning: one file each, found by its name."""

from flsplit.server.federation import Federation
from flsplit.server.strategy import Strategy, available, build
from flsplit.split.side import SideState

__all__ = ["Federation", "SideState", "Strategy", "available", "build"]
