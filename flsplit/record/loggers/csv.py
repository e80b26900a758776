"""`rounds.csv`: `rounds.parquet` as text; what is not known is empty."""

from __future__ import annotations

import pyarrow as pa
from pyarrow.csv import write_csv

from flsplit.record.loggers.interface import Logger


class CsvLogger(Logger):
    """See this module."""

    def log(self, rounds: pa.Table, new: int) -> None:
        """See `Logger`."""
        path = self.told.folder / "rounds.csv"
        part = path.with_suffix(".part")
        write_csv(rounds, part)
        part.replace(path)
