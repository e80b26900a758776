"""flsplit: split and split-federated learning of Vision Transformers, simulated on Flower and Ray."""

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # an actor that counts no GPU may still see them

if TYPE_CHECKING:
    from flsplit.experiment import Run, run

__all__ = ["Run", "run"]


def __getattr__(name: str) -> Any:
    """`flsplit.run` and `flsplit.Run`, imported on first use: a worker needs neither."""
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("flsplit.experiment"), name)
    raise AttributeError(f"module 'flsplit' has no attribute {name!r}")
