"""What another tool is told of a run, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa


@dataclass(frozen=True)
class Told:
    """A run as loggers are told of it before its first round.

    Attributes:
        folder: the run's.
        settings: its configuration, `key.key` to a plain value.
        varied: of a sweep's job: what other jobs have otherwise, in words.
        sweep: folder of the sweep; None outside one.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    varied: Mapping[str, Any] = field(default_factory=dict)
    sweep: Path | None = None

    @property
    def name(self) -> str:
        """What tells the run from others: the values of a sweep, or its folder's name."""
        return _words(self.varied) or self.folder.resolve().name

    @property
    def group(self) -> str | None:
        """What jobs of a sweep have in common that differ in their seed alone; None outside one."""
        if self.sweep is None:
            return None
        words = _words({key: value for key, value in self.varied.items() if key != "seed"})
        return f"{self.sweep.resolve().name} {words}".strip()


class Logger:
    """Is shown the rounds whenever the run's files have been written, and what the run has come to.

    Attributes:
        package: what must be installed, as `pip install` and `import` know it; empty for nothing.
        takes_files: whether `finish` wants the report and the configuration.
    """

    package: ClassVar[tuple[str, str] | None] = None
    takes_files: ClassVar[bool] = False

    def __init__(self, told: Told) -> None:
        self.told = told

    def log(self, rounds: pa.Table, new: int) -> None:
        """Take in the last `new` rows of `rounds`, which has the columns of `rounds.parquet`.

        At first these are all that a run that goes on has gone through. Some may be known already, the last of them
        with an evaluation that it has lost.
        """

    def finish(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Take in what `summary.json` says, of a run that has failed too, and files that belong to the run."""

    def close(self) -> None:
        """Nothing comes any more; without `finish` before it, the run was cut off."""


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What can be drawn of a row of `rounds.parquet`."""
    return {name: value for name, value in row.items() if name != "round" and value is not None}


def _words(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())
