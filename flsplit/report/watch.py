"""Runs that are going on, seen through their files alone: they may be another machine's, on a shared file system."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from flsplit.display.units import NOTHING, human_bits, missing, percent
from flsplit.record.folder import is_left
from flsplit.report.labels import folder_names
from flsplit.report.page import render, write_page
from flsplit.report.runs import ReportError, Run, load_run, runs_below

_SHARE = 10  # a page is written in a tenth of the time at most: the run may be on the same machine


class Watch:
    """What has been seen of the runs in a folder.

    A file that is absent, or that is being written, is looked at again the next time.

    Args:
        folder: a run's, or one with runs below it.
        out: the page.
        every: seconds after which the page loads itself anew.

    Attributes:
        ended: whether all runs that there are have ended; False while there is none.
    """

    def __init__(self, folder: Path, out: Path, every: float) -> None:
        self.folder, self.out, self._every = folder, out, every
        self.ended = False
        self._stale, self._due = True, 0.0  # whether the page lacks something; when it may be written again
        self._runs: dict[Path, Run] = {}
        self._told: dict[Path, int] = {}  # rounds that have been told
        self._over: set[Path] = set()  # runs whose end has been told

    def look(self) -> list[str]:
        """Read what is new, and write the page if there is anything.

        Returns:
            a line for each round, and for each run that has ended.

        Raises:
            ReportError: if the page cannot be written.
        """
        try:
            folders = runs_below(self.folder)
        except ReportError:  # a folder that has just gone, or is not there yet for this machine
            return []
        lines: list[str] = []
        names = folder_names(folders) if folders else []
        for folder, name in zip(folders, names):
            over = is_left(folder)  # first: what is read after that is all
            try:
                self._runs[folder] = run = load_run(folder)
            except ReportError:
                continue
            lines += self._news(run, f"{name}: " if len(folders) > 1 or folder != self.folder else "", over)
        self.ended = bool(folders) and set(folders) <= self._over
        self._stale = self._stale or bool(lines)
        if self._runs and self._stale and time.monotonic() >= self._due:
            self._write()
        return lines

    def close(self) -> None:
        """Write the page for the last time; it stays as it is.

        Raises:
            ReportError: if it cannot be written.
        """
        write_page(render(list(self._runs.values())), self.out)

    def _write(self) -> None:
        began = time.monotonic()
        write_page(render(list(self._runs.values()), refresh=self._every), self.out)
        now = time.monotonic()
        self._stale, self._due = False, now + (_SHARE - 1) * (now - began)

    def _news(self, run: Run, name: str, over: bool) -> list[str]:
        told = self._told.get(run.folder, 0)
        new = run.rounds[run.rounds["round"] > told]
        lines = [name + _line(row, run.config.get("rounds")) for row in new.to_dict("records")]
        if not new.empty:
            self._told[run.folder] = int(new["round"].max())
        if over and run.folder not in self._over:
            self._over.add(run.folder)
            cut_off = "cut off: no process is in it any more"
            lines.append(f"{name}{run.status if run.summary else cut_off}")
        elif not over:  # it has been taken up again
            self._over.discard(run.folder)
        return lines


def _line(row: Mapping[Any, Any], rounds: int | None) -> str:
    """A round as the run itself tells it."""
    loss = row.get("train_loss")
    number = int(row["round"])
    parts = (
        f"round {number}" if rounds is None else f"round {number:>{len(str(rounds))}d}/{rounds}",
        f"loss {NOTHING if missing(loss) else format(loss, '.3f'):>5}",
        f"accuracy {percent(row.get('test_accuracy')):>5}",
        f"up {human_bits(int(row['uplink_bits'])):>8}",
        f"down {human_bits(int(row['downlink_bits'])):>8}",
        f"{_number(row.get('seconds')):>5} s",
    )
    return "  ".join(parts)


def _number(value: Any) -> str:
    return NOTHING if missing(value) or pd.isna(value) else f"{value:.1f}"
