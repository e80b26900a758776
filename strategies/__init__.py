"""Strategies of split-federated learning: one file each, found by its name."""

from strategies.interface import Strategy
from strategies.registry import available, build

__all__ = ["Strategy", "available", "build"]
