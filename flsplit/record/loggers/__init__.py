"""Rounds for other tools to follow while a run goes on, beside its tables: `logger=csv`, `logger=[csv,wandb]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa

from flsplit.errors import UserError, nearest, no_exit, shown
from flsplit.record.loggers.interface import Logger, Told

LOGGERS = {"csv": "CsvLogger", "tensorboard": "TensorBoardLogger", "wandb": "WandbLogger", "mlflow": "MlflowLogger"}

__all__ = ["LOGGERS", "Logger", "Loggers", "Told", "check_loggers"]


class Loggers:
    """All loggers of a run. One that fails is told of and left out from then on: the run's own tables have it all.

    Args:
        names: keys of `LOGGERS`.
        told: what they are told of the run.

    Attributes:
        tell: shows the user a line.
    """

    def __init__(self, names: Sequence[str], told: Told) -> None:
        self.tell: Callable[[str], None] = partial(print, file=sys.stderr)
        self._all = {name: _kind(name)(told) for name in names}

    @property
    def names(self) -> list[str]:
        """Those that have not been left out."""
        return list(self._all)

    @property
    def take_files(self) -> bool:
        """Whether one wants the report and the configuration."""
        return any(logger.takes_files for logger in self._all.values())

    def log(self, rounds: pa.Table, new: int) -> None:
        """See `Logger`."""
        self._each(lambda logger: logger.log(rounds, new))

    def finish(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """See `Logger`."""
        self._each(lambda logger: logger.finish(summary, files))

    def close(self) -> None:
        """See `Logger`."""
        self._each(lambda logger: logger.close())

    def _each(self, does: Callable[[Logger], None]) -> None:
        for name, logger in list(self._all.items()):
            try:
                with no_exit():
                    does(logger)
            except Exception as error:  # whatever a service or its package raises
                del self._all[name]
                with suppress(Exception), no_exit():
                    logger.close()
                what = " ".join(str(error).split())
                self.tell(f"logger={name} is left out from here on: {type(error).__name__}: {what[:300]}")


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that there are not.

    Raises:
        UserError: unknown, named twice, or its package is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise UserError(
                f"logger must be null or any of {', '.join(LOGGERS)}, got {shown(name)}{nearest(name, LOGGERS)}"
            )
        if names.count(name) > 1:
            raise UserError(f"logger must name each tool once, got {name} twice")
        if (package := _kind(name).package) and find_spec(package[1]) is None:
            raise UserError(
                f'logger={name} needs a package that is not here: pip install {package[0]}, or "flsplit[{name}]"'
            )


def _kind(name: str) -> type[Logger]:
    found: type[Logger] = getattr(import_module(f"{__name__}.{name}"), LOGGERS[name])
    return found
