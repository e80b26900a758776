"""flsplit: split and split-federated learning of Vision Transformers, simulated on Flower and Ray."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # an actor that counts no GPU may still see them
warnings.filterwarnings("ignore", message="IProgress not found")  # in notebooks, by libraries that show bars


class _Beside(MetaPathFinder):
    """Finds `compressors` and `strategies` where they lie: beside this package.

    By `sys.path` alone, folders of these names would be taken for them wherever they come first or the packages
    themselves come by another finder: those of the folder at hand with `python -m`, in Ray's workers, and in an
    editable installation.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        if fullname not in ("compressors", "strategies"):
            return None
        return PathFinder.find_spec(fullname, [str(Path(__file__).parents[1])])


sys.meta_path.insert(0, _Beside())

if TYPE_CHECKING:
    from flsplit.engine import kept
    from flsplit.experiment import run, trained
    from flsplit.record.run import Run
    from flsplit.report.load import Runs, load

__all__ = ["Run", "Runs", "kept", "load", "run", "trained"]

_FROM = {
    "Run": "record.run",
    "Runs": "report.load",
    "kept": "engine",
    "load": "report.load",
    "run": "experiment",
    "trained": "experiment",
}


def __getattr__(name: str) -> Any:
    """`flsplit.run`, `flsplit.load` and what they return, imported on first use: a worker needs none."""
    if name in _FROM:
        from importlib import import_module

        return getattr(import_module(f"flsplit.{_FROM[name]}"), name)
    raise AttributeError(f"module 'flsplit' has no attribute {name!r}")
