"""Strategies of split-federated learning: one file each, found by its name."""

from flsplit.strategy import Strategy, available, build

__all__ = ["Strategy", "available", "build"]
