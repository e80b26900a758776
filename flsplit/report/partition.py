"""Who holds what: a run's partition as a picture, and what its clients reached on their own samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import FixedLocator, MaxNLocator

from flsplit.report.style import Style, figure, plain_axes, to_svg

_BLUES = LinearSegmentedColormap.from_list(
    "samples", ["#ffffff", "#c6dff0", "#7fb8dc", "#2f8cc4", "#0072B2", "#003f66"]
)
_WIDEST, _NARROW = 11.6, 4.6  # inches: the whole page, a telephone
_NAME = 16  # letters of a label's name
_COLUMNS = 1200  # more clients than this share columns
_WRITTEN = {False: (30, 20), True: (10, 20)}  # up to so many clients and labels, the counts are in the cells


def sentence(table: pd.DataFrame) -> str:
    """The partition in words."""
    sizes = table.sum(axis=0)
    clients, labels = table.shape[1], table.shape[0]
    total = f"{sizes.sum():,} samples of {labels} label{'s' * (labels != 1)}"
    if clients == 1:
        return f"1 client holds all {total}."
    held = (table > 0).sum(axis=0)
    return (
        f"{clients:,} clients, {total}; a client holds {sizes.min():,} to {sizes.max():,} samples "
        f"(median {sizes.median():,.0f}) of {held.min()} to {held.max()} labels (mean {held.mean():.1f})."
    )


def _ticks(axis: Any, values: list[Any], room: int) -> None:
    """Name every cell where there is room, else some at round positions."""
    if len(values) <= room:
        positions = list(range(len(values)))
    else:
        ticks = MaxNLocator(nbins=max(4, room // 2), integer=True, steps=[1, 2, 5, 10]).tick_values(0, len(values) - 1)
        positions = [int(tick) for tick in ticks if 0 <= tick < len(values)]
    axis.set_major_locator(FixedLocator(positions))
    names = [str(values[position]) for position in positions]
    axis.set_ticklabels(
        [name if len(name) <= _NAME else name[: _NAME - 1] + "\N{HORIZONTAL ELLIPSIS}" for name in names]
    )


def _pooled(table: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Cells to draw, and how many neighbouring clients share a column (their mean)."""
    share = -(-table.shape[1] // _COLUMNS)
    cells = table.to_numpy(dtype=float)
    if share == 1:
        return cells, 1
    starts = np.arange(0, cells.shape[1], share)
    widths = np.diff(np.append(starts, cells.shape[1]))
    return np.add.reduceat(cells, starts, axis=1) / widths, share


def _heat_map(axes: Axes, table: pd.DataFrame, height: float, narrow: bool) -> Any:
    cells, share = _pooled(table)
    labels, clients = table.shape
    image = axes.imshow(
        cells,
        cmap=_BLUES,
        norm=PowerNorm(0.5, vmin=0, vmax=max(1.0, cells.max())),
        aspect="auto",
        interpolation="none",
        extent=(-0.5, clients - 0.5, labels - 0.5, -0.5),
    )
    plain_axes(axes)
    if clients <= _WRITTEN[narrow][0] and labels <= _WRITTEN[narrow][1]:
        axes.set_xticks(np.arange(clients + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(labels + 1) - 0.5, minor=True)
        axes.grid(True, which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        for row, column in zip(*np.nonzero(cells)):
            dark = cells[row, column] > 0.36 * cells.max()
            axes.text(
                column,
                row,
                f"{int(cells[row, column])}",
                ha="center",
                va="center",
                fontsize=8.5 if clients <= 20 and not narrow else 7,
                color="white" if dark else "#26303d",
            )
    _ticks(axes.xaxis, list(table.columns), room=12 if narrow else 30)
    _ticks(axes.yaxis, list(table.index), room=int(height / 0.17))
    axes.set(xlabel=f"client{f' (each column: mean of {share})' if share > 1 else ''}", ylabel="label")
    return image


def partition_svg(table: pd.DataFrame, title: str, *, narrow: bool = False) -> str:
    """Clients by labels as a heat map of counts, samples per client above; bars for a single client."""
    labels, clients = table.shape
    if clients == 1:
        return _one_client(table, title, narrow)
    height = float(np.clip(0.26 * labels, 1.5, 5.2))
    width = _width(2.4 + 0.52 * clients, narrow)
    with figure(width, height + 1.9) as drawing:
        bars, heat = drawing.subplots(2, 1, sharex=True, height_ratios=[1.0, height])
        sizes = table.sum(axis=0).to_numpy()
        if clients <= 60:
            bars.bar(np.arange(clients), sizes, width=0.82, color="#56B4E9")
        else:
            edges = np.arange(clients + 1) - 0.5
            bars.stairs(sizes, edges, fill=True, color="#56B4E9")
        bars.set(ylabel="samples", ylim=(0, max(1, sizes.max()) * 1.08))
        bars.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        bars.tick_params(axis="x", length=0, labelbottom=False)
        bars.grid(False, axis="x")
        image = _heat_map(heat, table, height, narrow)
        bar = drawing.colorbar(image, ax=heat, pad=0.012, aspect=28, fraction=0.05)
        bar.set_label("samples of a label")
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        return to_svg(drawing, title)


def _width(wanted: float, narrow: bool) -> float:
    return _NARROW if narrow else float(np.clip(wanted, 5.7, _WIDEST))


def _one_client(table: pd.DataFrame, title: str, narrow: bool) -> str:
    sizes = table.iloc[:, 0].to_numpy()
    width = _width(2.0 + 0.45 * len(sizes), narrow)
    longest = max(len(str(name)) for name in table.index)
    with figure(width, 2.4 + (0.08 * min(longest, _NAME) if longest > 3 else 0)) as drawing:
        axes = drawing.subplots()
        axes.bar(np.arange(len(sizes)), sizes, width=0.82, color="#56B4E9")
        axes.grid(False, axis="x")
        _ticks(axes.xaxis, list(table.index), room=12 if narrow else 30)
        if longest > 3:
            axes.tick_params(axis="x", rotation=90)
        axes.set(xlabel="label", ylabel="samples", xlim=(-0.6, len(sizes) - 0.4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        return to_svg(drawing, title)


def last_accuracies(clients: pd.DataFrame) -> pd.Series:
    """Each client's latest accuracy on its held-out samples, by client; empty if none was measured."""
    known = clients.dropna(subset=["test_accuracy"]).sort_values("round", kind="stable")
    return known.groupby("client")["test_accuracy"].last().astype(float)


def accuracy_svg(accuracies: pd.Series, style: Style, title: str, *, narrow: bool = False) -> str:
    """Accuracy of every client as a dot, with their mean."""
    values = 100 * accuracies.to_numpy()
    with figure(_width(2.4 + 0.52 * len(values), narrow), 2.5) as drawing:
        axes = drawing.subplots()
        axes.axhline(values.mean(), color="#5b6573", linewidth=1.1, linestyle=(0, (5, 3)))
        size = 28 if len(values) <= 60 else 9
        axes.scatter(np.arange(len(values)), values, s=size, color=style.colour, linewidths=0)
        _ticks(axes.xaxis, list(accuracies.index), room=12 if narrow else 30)
        axes.set(xlabel="client", ylabel="accuracy (%)", xlim=(-0.7, len(values) - 0.3))
        axes.margins(y=0.12)
        return to_svg(drawing, title)
