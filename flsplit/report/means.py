"""The page's table of settings: means over seeds, with the interval that seeds leave for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from flsplit.display.units import duration, missing
from flsplit.record.run import SUMS
from flsplit.report.labels import folder_names
from flsplit.report.runs import Run
from flsplit.report.seeds import by_setting, mean_of
from flsplit.report.tables import number, table

_NOTE = (
    "Runs that differ in their seed alone are one row: the mean over them, and its 95% interval if seeds are alike "
    "(Student's t). Only runs that have ended well count. Sent is all of it, models included."
)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None or missing(value) else factor * value


def _sent(run: Run) -> float | None:
    bits = [run.figure(key) for key in SUMS["bits"]]
    return None if any(missing(number) for number in bits) else sum(bits) / 1e6


_COLUMNS: tuple[tuple[str, Callable[[Run], float | None], Callable[[float], str]], ...] = (
    ("final acc. (%)", lambda run: _scaled(run.figure("final_test_accuracy"), 100), lambda value: f"{value:.2f}"),
    ("best acc. (%)", lambda run: _scaled(run.figure("best_test_accuracy"), 100), lambda value: f"{value:.2f}"),
    ("ξ", lambda run: run.figure("xi"), number),
    ("sent (Mb)", _sent, number),
    ("time", lambda run: run.figure("seconds"), duration),
)


def section(runs: Sequence[Run]) -> str:
    """HTML; empty where no setting has several seeds."""
    ended = [run for run in runs if run.status in ("completed", "budget")]
    if not ended:
        return ""
    settings = by_setting([run.config for run in ended], folder_names([run.folder for run in ended]))
    if all(len(members) == 1 for _, members in settings):
        return ""
    rows = []
    for name, members in settings:
        cells = [_cell([value(ended[n]) for n in members], show) for _, value, show in _COLUMNS]
        rows.append([escape(name), str(len(members)), *cells])
    made = table(["setting", "seeds", *(head for head, _, _ in _COLUMNS)], rows, "results means")
    return f'<h2>Means over seeds</h2>{made}<p class="note">{_NOTE}</p>'


def _cell(values: Sequence[float | None], show: Callable[[float], str]) -> str:
    there = [value for value in values if value is not None and not missing(value)]
    if not there:
        return "\N{EN DASH}"
    mean, half = mean_of(there)
    return show(mean) + (f" ± {show(half)}" if half is not None and show is not duration else "")
