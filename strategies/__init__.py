"""Strategies of split-federated learning: one file each, found by its name."""

from flsplit.server.strategy import Strategy, available, build

__all__ = ["Strategy", "available", "build"]
