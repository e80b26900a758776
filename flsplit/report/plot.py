"""A figure for a paper: a line for each group of runs, its mean over seeds and the interval that they leave for it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from flsplit.record.run import check_all_have, values
from flsplit.record.units import axis, is_share
from flsplit.report import labels
from flsplit.report.runs import ReportError, Run
from flsplit.report.seeds import by_setting, half_width
from flsplit.report.style import Style, figure

WIDTHS = {1: 3.4, 2: 7.0}  # inches: of one column, and of both, in most journals and proceedings
_LETTERS, _HANDLE = 18, 8  # of a legend: letters to an inch, and those that a line's mark takes the room of
FORMATS = (".pdf", ".png", ".svg")
# TrueType in PDF, as publishers want it; letters as large as those of a caption.
_PRINT = {"pdf.fonttype": 42, "font.size": 8, "lines.linewidth": 1.2, "svg.fonttype": "path", "savefig.dpi": 300}


@dataclass(frozen=True)
class Line:
    """A group of runs that differ in their seed alone.

    Attributes:
        name: what tells it from the others.
        points: a row for each round that all its runs have and in which both are known: `x` and `y`, means over seeds;
            `low` and `high`, between which the mean of `y` lies with a confidence of 95% if seeds are alike (Student's
            t); NaN for one seed.
        seeds: how many.
    """

    name: str
    points: pd.DataFrame
    seeds: int


def lines(runs: Sequence[Run], x: str, y: str, by: Sequence[str] = ()) -> list[Line]:
    """Runs in groups.

    Args:
        runs: of any number of seeds each.
        x: a column of `rounds.parquet`, `bits` (all that was sent), or `seconds` (since the start).
        y: the same.
        by: settings whose values make a group, such as `compressor` or `compressor.ratio`; none for all that vary, but
            the seed.

    Raises:
        ReportError: if a setting is unknown, or runs of a group differ in another one, which no mean may hide.
        UserError: if there is no such column, or not in all runs.
    """
    folders = labels.folder_names([run.folder for run in runs])
    for column in (x, y):
        check_all_have(column, {name: run.rounds for name, run in zip(folders, runs)})
    varied = labels.varied([run.config for run in runs])
    varied.pop("seed", None)
    known = {key.removesuffix(".name") for run in runs for key in labels.settings(run.config)}
    for key in by:
        if key not in known:
            raise ReportError(f"--by {key}: the runs have no such setting")
    keys = [key for key in (by or varied) if key in varied]
    groups = by_setting([run.config for run in runs], [run.folder.name for run in runs], keys)
    for _, members in groups:
        for key, found in varied.items():
            if len(different := {labels.alike(found[number]) for number in members}) > 1:
                raise ReportError(
                    f"--by {','.join(by)}: runs of one line differ in {key} ({', '.join(sorted(different))}); add it, "
                    "or leave such runs out"
                )
    return [_line(name, [runs[n] for n in members], x, y) for name, members in groups]


def draw(found: Sequence[Line], axes: Axes, x: str, y: str) -> None:
    """Lines with their intervals, and units on the axes."""
    largest = pd.concat([line.points for line in found]).max()
    (x_label, x_unit), (y_label, y_unit) = axis(x, largest.x), axis(y, largest.y)
    for number, line in enumerate(found):
        style, points = Style.of(number), line.points
        axes.plot(
            points.x / x_unit, points.y / y_unit, color=style.colour, marker=style.marker, markersize=3,
            markevery=max(1, len(points) // 10), label=line.name,
        )  # fmt: skip
        if line.seeds > 1:
            ends = points[["low", "high"]].clip(0, 1) if is_share(y) else points[["low", "high"]]
            axes.fill_between(
                points.x / x_unit, ends.low / y_unit, ends.high / y_unit, color=style.colour, alpha=0.2, lw=0
            )
    if x == "round":
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set(xlabel=x_label, ylabel=y_label)


def save(runs: Sequence[Run], out: Path, *, x: str, y: str, by: Sequence[str] = (), columns: int = 1) -> list[Line]:
    """Draw runs into a file, as wide as one or two columns.

    Raises:
        ReportError: see `lines`; or the file is of another kind, or cannot be written.
    """
    if out.suffix not in FORMATS:
        raise ReportError(f"--out {out} must end in {', '.join(FORMATS)}")
    found = lines(runs, x, y, by)
    if not any(len(line.points) for line in found):
        raise ReportError(f"no run has a round in which both {x} and {y} are known")
    width = WIDTHS[columns]
    names = [textwrap.fill(line.name, int(width * _LETTERS) - _HANDLE) for line in found]
    longest = max(len(part) for name in names for part in name.splitlines())
    aside = max(1, int(width * _LETTERS) // (longest + _HANDLE))  # names that have room beside one another
    below = len(found) > 3 or aside == 1  # then the legend leaves the lines alone
    rows = sum(max(name.count("\n") + 1 for name in names[at : at + aside]) for at in range(0, len(names), aside))
    height = (0.62 if columns == 1 else 0.42) * width + (0.14 * rows if below else 0)
    with figure(width, height) as drawing, matplotlib.rc_context(_PRINT):
        axes = drawing.add_subplot()
        draw(found, axes, x, y)
        if len(found) > 1 and below:
            lines_of = axes.get_lines()
            drawing.legend(lines_of, names, frameon=False, loc="outside lower center", ncols=aside, fontsize=7)
        elif len(found) > 1:
            axes.legend(frameon=False)
        metadata: dict[str, Any] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(out.suffix, {})
        try:
            drawing.savefig(out, metadata=metadata)
        except OSError as error:
            raise ReportError(f"--out {out} cannot be written: {error.strerror}") from error
    return found


def _line(name: str, runs: Sequence[Run], x: str, y: str) -> Line:
    parts = [
        pd.DataFrame(
            {"round": run.rounds["round"], "x": values(run.rounds, x, "x"), "y": values(run.rounds, y, "y")}
        ).dropna()
        for run in runs
    ]
    by_round = pd.concat(parts).groupby("round")
    points = by_round.mean()[by_round.size() == len(runs)]
    half = np.nan
    if len(runs) > 1:
        half = half_width(by_round["y"].std(), len(runs))[points.index]
    return Line(name, points.assign(low=points.y - half, high=points.y + half), len(runs))
