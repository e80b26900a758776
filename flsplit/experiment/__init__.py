"""One experiment from start to finish."""

from flsplit.experiment.preparation import Prepared, lay_out, prepare
from flsplit.experiment.steps import execute, run, trained

__all__ = ["Prepared", "execute", "lay_out", "prepare", "run", "trained"]
