"""What an evaluation measures: one metric, one file, found by its name."""

from flsplit.metrics.interface import Collected, Metric, available, build

__all__ = ["Collected", "Metric", "available", "build"]
