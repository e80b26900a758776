"""What a side trains: one way, one file, found by its name."""

from flsplit.split.tuning.interface import Tuning

__all__ = ["Tuning"]
