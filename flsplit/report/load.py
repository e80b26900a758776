"""Runs in pandas: one as `run` returns it, many as a table of what they varied and what came out."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flsplit.errors import UserError
from flsplit.record.run import Run, check_all_have, draw, read_run
from flsplit.report import labels, runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS = (
    "status", "rounds", "samples", "final_test_accuracy", "best_test_accuracy", "uplink_bits", "downlink_bits",
    "sync_bits", "wire_bytes", "xi", "simulated_seconds", "joules", "seconds",
)  # fmt: skip
Where = str | os.PathLike[str]


class Runs:
    """Several runs, finished or not.

    Attributes:
        table: a row per run: `run` (its folder), every key of the configuration that varies, and `RESULTS`. A key that
            is called like a result is `config.KEY`: `config.rounds` were asked for, `rounds` there have been. A list
            is text there, such as that of `metrics`.
        rounds: a row per run and round: `run`, what varies, and the columns of `rounds.parquet`.
    """

    def __init__(self, found: Sequence[runs.Run]) -> None:
        self._found = list(found)
        taken = {"run", *RESULTS, *(column for run in found for column in run.rounds)}
        keys = labels.varied([run.config for run in found])
        varied = {f"config.{key}" if key in taken else key: list(map(_cell, told)) for key, told in keys.items()}
        names = [str(run.folder) for run in found]
        head = pd.DataFrame({"run": names, **varied})
        told = pd.DataFrame([{key: _told(run, key) for key in RESULTS} for run in found])
        self.table = pd.concat([head, told], axis=1)
        parts = [run.rounds.assign(**dict(zip(head, row))) for run, row in zip(found, head.itertuples(index=False))]
        rounds = pd.concat(parts, ignore_index=True)
        self.rounds = rounds[[*head, *(column for column in rounds if column not in head)]]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Run]:
        """Each as `load` of its folder alone; a run that has not ended has an empty summary."""
        for run in self._found:
            yield Run(path=run.folder, rounds=run.rounds, clients=run.clients, summary=run.summary or {})

    def plot(self, ax: Axes | None = None, *, x: str = "round", y: str = "test_accuracy", **line: Any) -> Axes:
        """A line for each run, named by what it differs in.

        Args:
            ax: where; None for pyplot's axes at hand.
            x: a column of `rounds.parquet`; `bits`, all that was sent; `seconds` since the start.
            y: the same.
            line: for `Axes.plot`, of every line.

        Returns:
            the axes, with a legend.

        Raises:
            UserError: if there is no such column, or not in all runs.
        """
        folders = labels.folder_names([run.folder for run in self._found])
        for column in (x, y):
            check_all_have(column, {name: run.rounds for name, run in zip(folders, self._found)})
        names = labels.short_labels([run.config for run in self._found], [run.folder.name for run in self._found])
        ax = draw([run.rounds for run in self._found], ax, x, y, [{"label": name, **line} for name in names])
        ax.legend()
        return ax

    def __repr__(self) -> str:
        """The table."""
        return str(self.table.to_string(index=False))

    def _repr_html_(self) -> str:
        """In a notebook: the table."""
        return str(self.table.to_html(index=False))


def load(where: Where | Sequence[Where]) -> Run | Runs:
    """Read what runs have left.

    Args:
        where: the folder of a finished run; or a folder with runs below it, a pattern such as `runs/*`, or a list of
            any of these.

    Returns:
        the run, as `flsplit.run` returns it; or a table of all, each once however often it is named.

    Raises:
        UserError: if there is no run, or a file cannot be read.
    """
    if not where:
        raise UserError("load: name the folder of a run, or a pattern such as runs/*")
    if isinstance(where, (str, os.PathLike)) and runs.is_run(Path(where)):
        if runs.load_run(Path(where)).summary is None:  # which also makes a damaged file one line
            raise UserError(f"{where}: this run has not ended; load([{str(where)!r}]) takes what there is")
        return read_run(Path(where))
    given = [where] if isinstance(where, (str, os.PathLike)) else where
    folders = runs.once(folder for each in given for folder in _folders(os.fspath(each)))
    return Runs([runs.load_run(folder) for folder in folders])


def _folders(where: str) -> list[Path]:
    """Folders of runs at a path or below it; of a pattern, what it meets that holds none is passed over."""
    if not glob.has_magic(where):
        return runs.find_runs([Path(where)])
    found = runs.ordered(path for path in map(Path, glob.glob(where)) if path.is_dir())  # noqa: PTH207 (it may be absolute)
    folders = [run for path in found for run in runs.runs_below(path)]
    if not folders:
        what = "no run lies in the folders, or below them, that match it" if found else "no folder matches it"
        raise UserError(f"{where}: {what}")
    return folders


def _told(run: runs.Run, key: str) -> Any:
    return run.status if key == "status" else run.figure(key)


def _cell(value: Any) -> Any:
    """A setting as a column has it: pandas would spread a list over rows, and groups by none."""
    return labels.text(value) if isinstance(value, list) else value
