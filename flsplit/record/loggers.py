"""Rounds for other tools to follow while a run goes on, beside its tables: `logger=csv` or `logger=tensorboard`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.csv import write_csv

from flsplit.errors import UserError
from flsplit.typed import nearest, shown


class Logger:
    """Is shown the rounds whenever the run's files are written; this one looks away."""

    def log(self, rounds: pa.Table, new: int) -> None:
        """Take in the last `new` rows of `rounds`, which has the columns of `rounds.parquet`."""

    def close(self) -> None:
        """The run is over."""


class CsvLogger(Logger):
    """`rounds.csv`: `rounds.parquet` as text; what is not known is empty."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rounds.csv"

    def log(self, rounds: pa.Table, new: int) -> None:
        """See `Logger`."""
        part = self._path.with_suffix(".part")
        write_csv(rounds, part)
        part.replace(self._path)


class TensorBoardLogger(Logger):
    """`tensorboard/`: a curve over rounds for each column of `rounds.parquet`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def log(self, rounds: pa.Table, new: int) -> None:
        """See `Logger`. Rounds that a resumed run goes through again are dropped from the curves."""
        rows = rounds.slice(len(rounds) - new).to_pylist()
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=rows[0]["round"])
        for row in rows:
            number = row.pop("round")
            for name, value in row.items():
                if value is not None:
                    self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self) -> None:
        """See `Logger`."""
        if self._writer is not None:
            self._writer.close()


LOGGERS = {"csv": CsvLogger, "tensorboard": TensorBoardLogger}


def check_logger(name: str | None) -> None:
    """Refuse a logger that there is not.

    Raises:
        UserError: unknown, or its package is not installed.
    """
    if name is None:
        return
    if name not in LOGGERS:
        raise UserError(
            f"logger must be null or one of {', '.join(LOGGERS)}, got {shown(name)}{nearest(name, LOGGERS)}"
        )
    if name == "tensorboard" and find_spec("tensorboard") is None:
        raise UserError("logger=tensorboard needs a package that is not here: pip install tensorboard")


def logger_for(name: str | None, folder: Path) -> Logger:
    """The logger of a run.

    Args:
        name: a key of `LOGGERS`, or None.
        folder: the run's.
    """
    return Logger() if name is None else LOGGERS[name](folder)
