"""Sections of the page with lines: accuracy and loss over what was spent, one line for each group of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from operator import itemgetter
from typing import Any

import pandas as pd

from flsplit.report import curves
from flsplit.report.charts import chart
from flsplit.report.groups import Group
from flsplit.report.style import Style

Column = Callable[[pd.DataFrame], pd.Series]


def legend(entries: Sequence[tuple[str, Style]], *, single: bool = False) -> str:
    """Names lines; a lone one only where `single` asks for it."""
    if len(entries) == 1 and not single:
        return ""
    items = "".join(f"<li>{style.swatch()}{escape(name)}</li>" for name, style in entries)
    return f'<ul class="legend">{items}</ul>'


def _line_legend(groups: Sequence[Group], charts: Sequence[Mapping[str, curves.Curve]]) -> str:
    several = any(len(group.runs) > 1 for group in groups)
    mean = "A line is the mean over seeds that have ended (or, if none has, come as far as the farthest), in the "
    band = "rounds in which all of these have a number; its band reaches from the least to the greatest of them."
    told = f'<p class="note">{mean}{band}</p>' if several else ""
    drawn = [[lines[group.label].seeds for lines in charts if group.label in lines] for group in groups]
    return legend([(group.name(of), group.style) for group, of in zip(groups, drawn)], single=several) + told


def _lines(groups: Sequence[Group], x: Column, y: Column) -> dict[str, curves.Curve]:
    """A line for each group that has any, by its label."""
    made = {}
    for group in groups:
        ended = [run for run in group.runs if run.ended]
        found = [(x(run.rounds), y(run.rounds)) for run in ended or group.runs]
        made[group.label] = curves.mean_curve(found, group.style, farthest=not ended)
    return {label: line for label, line in made.items() if line is not None}


def _table(lines: Mapping[str, curves.Curve], x: str, y: str) -> pd.DataFrame:
    """What a chart draws, a row for each point; `least`, `greatest` and of how many where a line is a mean."""
    parts = []
    for label, line in lines.items():
        columns: dict[str, Any] = {"line": label, x: line.x, y: line.y}
        if line.low is not None and line.high is not None:
            columns |= {"least": line.low, "greatest": line.high, "seeds": line.seeds}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _over_rounds(lines: Mapping[str, curves.Curve], title: str, caption: str, y_label: str, kind: str = "half") -> str:
    def draw(narrow: bool) -> str:
        size = curves.NARROW if narrow else curves.WHOLE if kind == "whole" else curves.HALF
        return curves.over_rounds(list(lines.values()), title=title, y_label=y_label, size=size)

    return chart(draw, caption, kind, file=title, data=_table(lines, "round", y_label))


def _over(lines: Mapping[str, curves.Curve], kind: str, caption: str, what: str) -> str:
    title, y_label = f"Test accuracy {caption[0].lower()}{caption[1:]}", "test accuracy (%)"

    def draw(narrow: bool) -> str:
        size = curves.NARROW if narrow else curves.HALF
        return curves.over(list(lines.values()), kind, title=title, y_label=y_label, what=what, size=size)

    return chart(draw, caption, "half", file=title, data=_table(lines, f"{what} ({kind})", y_label))


def accuracy(groups: Sequence[Group]) -> str:
    """Test accuracy over rounds, over bits, and over simulated time and energy where there are any."""

    def percent(rounds: pd.DataFrame) -> pd.Series:
        return 100 * rounds["test_accuracy"].astype(float)

    def link(rounds: pd.DataFrame) -> pd.Series:
        return rounds["uplink_bits"] + rounds["downlink_bits"]

    by_round = _lines(groups, itemgetter("round"), percent)
    if not by_round:
        evaluated = any(any(run.evaluated) for group in groups for run in group.runs)
        told = "No round has a number for all seeds." if evaluated else "No round has been evaluated."
        return f"<h2>Test accuracy</h2><p>{told}</p>"
    by_bits = _lines(groups, link, percent)
    by_all = _lines(groups, lambda rounds: link(rounds) + rounds["sync_bits"], percent)
    runs = [run for group in groups for run in group.runs]
    plots: list[tuple[dict[str, curves.Curve], str, str, str]] = []
    if any(line.x.max() > 0 for line in by_bits.values()):
        what = "activations and gradients, both ways"
        plots.append((by_bits, "bits", "Over activations and gradients sent", what))
    if any(run.rounds["sync_bits"].max() > 0 for run in runs):
        what = "activations, gradients and models, both ways"
        plots.append((by_all, "bits", "Over all that was sent, models included", what))
    for kind, column, caption, what in (
        ("seconds", "simulated_seconds", "Over simulated time", "simulated time"),
        ("joules", "joules", "Over the clients' energy", "energy of all clients"),
    ):
        lines = _lines(groups, partial(_or_nothing, column), percent)
        if any(line.x.max() > 0 for line in lines.values()):
            plots.append((lines, kind, caption, what))
    # The first plot takes the whole width where the others fill their row.
    room = "whole" if len(plots) % 2 == 0 else "half"
    parts = [_over_rounds(by_round, "Test accuracy over rounds", "Over rounds", "test accuracy (%)", room)]
    parts += [_over(*plot) for plot in plots]
    return f'<h2>Test accuracy</h2>{_line_legend(groups, [by_round])}<div class="plots">{"".join(parts)}</div>'


def _or_nothing(column: str, rounds: pd.DataFrame) -> pd.Series:
    return rounds[column] if column in rounds else pd.Series(float("nan"), index=rounds.index)


def loss(groups: Sequence[Group]) -> str:
    """Losses over rounds; empty without any."""
    names = {"train_loss": "Training loss", "test_loss": "Test loss"}
    charts = {name: _lines(groups, itemgetter("round"), itemgetter(column)) for column, name in names.items()}
    charts = {name: lines for name, lines in charts.items() if lines}
    if not charts:
        return ""
    parts = [
        _over_rounds(lines, f"{name} over rounds", f"{name} over rounds", f"{name.lower()} (nats)")
        for name, lines in charts.items()
    ]
    told = _line_legend(groups, list(charts.values()))
    return f'<h2>Loss</h2>{told}<div class="plots">{"".join(parts)}</div>'
