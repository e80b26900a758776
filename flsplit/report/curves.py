"""Line plots over the rounds of runs: accuracy and loss, against rounds or bits sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from flsplit.record.units import unit
from flsplit.report.style import Style, figure, plain_log, to_svg

HALF, WHOLE, NARROW = (5.7, 3.5), (11.6, 3.7), (4.6, 3.3)  # inches: half or the whole page, a telephone
_BESIDE = 0.9  # inches that the y axis takes of a plot's width
_MARKED = 40  # a line of more points carries fewer markers
_POINTS = 500  # and is thinned beyond this


@dataclass(frozen=True)
class Curve:
    """A line of one run, or of the mean of `seeds` of them, which lie between `low` and `high`."""

    x: np.ndarray
    y: np.ndarray
    style: Style
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    seeds: int = 1

    def keep(self, rows: np.ndarray, scale: float = 1.0) -> Curve:
        """Some of its points, with `x` in another unit."""
        low, high = (None if bound is None else bound[rows] for bound in (self.low, self.high))
        return Curve(self.x[rows] / scale, self.y[rows], self.style, low, high, self.seeds)


def mean_curve(found: Sequence[tuple[pd.Series, pd.Series]], style: Style, *, farthest: bool = False) -> Curve | None:
    """The mean of runs that differ in their seed, round by round; where one of them has no number, there is none.

    Args:
        found: x and y of each, in the order of rounds.
        style: of the line.
        farthest: whether those that have not come as far as the farthest are left out.
    """
    known = [_known(x, y) for x, y in found]
    if all(points.empty for points in known):
        return None
    most = max(points.index[-1] for points in known if not points.empty)
    last = [points for points, (_, y) in zip(known, found) if most in y.index or not farthest]
    if len(last) == 1:
        return _of(last[0], style)
    rounds = pd.concat(last).groupby(level=0)
    mean, low, high = rounds.mean(), rounds["y"].min(), rounds["y"].max()
    points = mean.assign(low=low, high=high)[rounds.size() == len(last)]
    return None if points.empty else _of(points, style, len(last))


def curve(x: pd.Series, y: pd.Series, style: Style) -> Curve | None:
    """A line through the rows where both are known; None if there are none."""
    points = _known(x, y)
    return None if points.empty else _of(points, style)


def _known(x: pd.Series, y: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"x": x, "y": y}).astype(float).replace([np.inf, -np.inf], np.nan).dropna()


def _of(points: pd.DataFrame, style: Style, seeds: int = 1) -> Curve:
    if len(points) > _POINTS:
        points = points.iloc[np.unique(np.linspace(0, len(points) - 1, _POINTS).round().astype(int))]
    low, high = (points[name].to_numpy() if name in points else None for name in ("low", "high"))
    return Curve(points["x"].to_numpy(), points["y"].to_numpy(), style, low, high, seeds)


def _draw(
    curves: Sequence[Curve], *, title: str, x_label: str, y_label: str, size: tuple[float, float], log_x: bool
) -> str:
    with figure(*size) as drawing:
        axes = drawing.subplots()
        if log_x:
            axes.set_xscale("log")
            plain_log(axes.xaxis)
        for line in curves:
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=line.style.colour, alpha=0.16, linewidth=0)
            axes.plot(
                line.x,
                line.y,
                color=line.style.colour,
                marker=line.style.marker,
                markersize=4.2,
                markevery=max(1, -(-len(line.x) // _MARKED)),
            )
        if all(np.array_equal(line.x, np.round(line.x)) for line in curves) and not log_x:
            axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        axes.set(xlabel=x_label, ylabel=y_label)
        label = axes.xaxis.label
        if label.get_window_extent().width > drawing.bbox.width - _BESIDE * drawing.dpi:
            label.set_text(x_label.replace(" (", "\n(", 1))
        axes.margins(x=0.03, y=0.07)
        return to_svg(drawing, title)


def over_rounds(curves: Sequence[Curve], *, title: str, y_label: str, size: tuple[float, float] = HALF) -> str:
    """A plot against the round."""
    return _draw(curves, title=title, x_label="round", y_label=y_label, size=size, log_x=False)


def over(
    curves: Sequence[Curve], kind: str, *, title: str, y_label: str, what: str, size: tuple[float, float] = HALF
) -> str:
    """A plot against what was spent, in the unit that suits the largest, logarithmic where runs are far apart.

    Args:
        curves: their `x` in `kind`.
        kind: `bits`, `seconds` or `joules`.
        title: for readers who do not see the picture.
        y_label: with its unit.
        what: what they are, for the axis.
        size: inches.
    """
    curves = [line.keep(line.x > 0) for line in curves]
    curves = [line for line in curves if len(line.x)]
    totals = [line.x[-1] for line in curves]
    size_of_unit, name = unit(kind, max(totals))
    log_x = max(totals) > 8 * min(totals)
    scaled = [line.keep(np.full(len(line.x), True), size_of_unit) for line in curves]
    label = f"{what} ({name}{', log scale' if log_x else ''})"
    return _draw(scaled, title=title, x_label=label, y_label=y_label, size=size, log_x=log_x)
