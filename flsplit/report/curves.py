"""Line plots over the rounds of runs: accuracy and loss, against rounds or bits sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from flsplit.report.style import Style, figure, plain_log, to_svg

HALF, WHOLE = (5.7, 3.5), (11.6, 3.7)  # inches: half or the whole width of the page
_MARKED = 40  # a line of more points carries fewer markers
_POINTS = 1000  # and is thinned beyond this
_UNITS = {
    "bits": ((1e12, "terabits"), (1e9, "gigabits"), (1e6, "megabits"), (1e3, "kilobits"), (1, "bits")),
    "seconds": ((3 * 86400, "days"), (3 * 3600, "hours"), (1, "seconds")),
    "joules": ((1e6, "megajoules"), (1e3, "kilojoules"), (1, "joules")),
}
_SIZES = {"days": 86400.0, "hours": 3600.0}  # of units that begin elsewhere


@dataclass(frozen=True)
class Curve:
    """One run's line."""

    x: np.ndarray
    y: np.ndarray
    style: Style


def curve(x: pd.Series, y: pd.Series, style: Style) -> Curve | None:
    """A line through the rows where both are known; None if there are none."""
    points = pd.DataFrame({"x": x, "y": y}).astype(float).replace([np.inf, -np.inf], np.nan).dropna()
    if points.empty:
        return None
    if len(points) > _POINTS:
        points = points.iloc[np.unique(np.linspace(0, len(points) - 1, _POINTS).round().astype(int))]
    return Curve(points["x"].to_numpy(), points["y"].to_numpy(), style)


def _draw(
    curves: Sequence[Curve], *, title: str, x_label: str, y_label: str, size: tuple[float, float], log_x: bool
) -> str:
    with figure(*size) as drawing:
        axes = drawing.subplots()
        if log_x:
            axes.set_xscale("log")
            plain_log(axes.xaxis)
        for line in curves:
            axes.plot(
                line.x,
                line.y,
                color=line.style.colour,
                marker=line.style.marker,
                markersize=4.2,
                markevery=max(1, -(-len(line.x) // _MARKED)),
            )
        if all(np.array_equal(line.x, np.round(line.x)) for line in curves) and not log_x:
            axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))
        axes.set(xlabel=x_label, ylabel=y_label)
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
    curves = [Curve(line.x[line.x > 0], line.y[line.x > 0], line.style) for line in curves]
    curves = [line for line in curves if len(line.x)]
    totals = [line.x[-1] for line in curves]
    least, unit = next(pair for pair in _UNITS[kind] if max(totals) >= pair[0] or pair[0] == 1)
    scale = _SIZES.get(unit, least)
    log_x = max(totals) > 8 * min(totals)
    scaled = [Curve(line.x / scale, line.y, line.style) for line in curves]
    label = f"{what} ({unit}{', log scale' if log_x else ''})"
    return _draw(scaled, title=title, x_label=label, y_label=y_label, size=size, log_x=log_x)
