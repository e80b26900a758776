"""`tensorboard/`: a curve over rounds for each column of `rounds.parquet`."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa

from flsplit.record.loggers.interface import Logger, Told, numbers


class TensorBoardLogger(Logger):
    """See this module. What a resumed run goes through again, or takes back, is dropped from the curves."""

    package: ClassVar = ("tensorboard", "tensorboard")

    def __init__(self, told: Told) -> None:
        super().__init__(told)
        self._writer: Any = None

    def log(self, rounds: pa.Table, new: int) -> None:
        """See `Logger`."""
        rows = rounds.slice(len(rounds) - new).to_pylist()
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.told.folder / "tensorboard"), purge_step=rows[0]["round"])
        for row in rows:
            for name, value in numbers(row).items():
                self._writer.add_scalar(name, value, row["round"])
        self._writer.flush()

    def close(self) -> None:
        """See `Logger`."""
        if self._writer is not None:
            self._writer.close()
