"""Draws the paper's figures from the rows there are, the reported curves lightly behind ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.paper.clusters import fig8
from experiments.paper.protocol import METHODS, OTHERS
from experiments.paper.reported import reported
from experiments.point import Point
from experiments.results import Results, mean
from experiments.runner import Place
from experiments.seeds import like_for_like
from flsplit.report.style import Style, figure, plain_axes

LABELS = {
    "base": "Base", "adc": "ADC", "topk": "Top-K", "randtopk": "RandTopK", "c3sl": "C3-SL", "bottlenet": "BottleNet++",
    "fedlite": "FedLite", "splitfc": "SplitFC",
}  # fmt: skip
NAMES = {"cifar100": "CIFAR-100", "food101": "Food101", "deit_tiny": "DeiT-T", "deit_small": "DeiT-S"}
_STYLES = {
    m: Style.of(i)
    for m, i in zip(("adc", "topk", "randtopk", "c3sl", "bottlenet", "base", *OTHERS), (0, 2, 3, 4, 1, 6, 5, 8))
}
_RULE_LINES = {"sqrt": "-", "pow_1_5_4_5": "--", "release2026": ":"}


def draw(name: str, points: Sequence[Point], results: Results, folder: Path, place: Place) -> list[Path]:
    """Draw a figure; where it has several panels of data and model, one file each.

    Args:
        name: `fig1`, `fig3` to `fig8`.
        points: the runs behind it; those without a row are left out, and seeds that have other rows than the rest.
        results: their rows.
        folder: where the images go.
        place: the runs' folders, which Figure 8 looks into.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = gather(points, results)
    drawn = []
    for (scale, dataset, model), of_panel in rows.groupby(["scale", "dataset", "model"]):
        path = folder / f"{'fig4' if name == 'rows' else name}-{dataset}-{model}-{scale}.png"
        if name == "fig8":
            fig8(list(of_panel.point), place, path)
        else:
            _FIGURES[name](of_panel, results, path)
        drawn.append(path)
    return drawn


def gather(points: Sequence[Point], results: Results) -> pd.DataFrame:
    """The rows of `points`, each with its point and what it was set to; see `like_for_like`."""
    found = []
    for point in like_for_like(points, results):
        row = results.row(point)
        assert row is not None
        options = dict(option.split("=", 1) for option in point.options)
        found.append({**row.to_dict(), "point": point, "value": point.value, "options": options})
    return pd.DataFrame(found)


def title(rows: pd.DataFrame) -> str:
    """Model, data and scale in words."""
    first = rows.iloc[0]
    scale = "" if first.scale == "full" else f" ({first.scale} scale)"
    return f"{NAMES[first.model]} on {NAMES[first.dataset]}{scale}"


def _accuracy_over_xi(rows: pd.DataFrame, results: Results, path: Path) -> None:
    with figure(7, 4.6) as drawing:
        axes = drawing.subplots()
        legend = []
        published = reported().query(f"figure == 'fig4' and dataset == '{rows.dataset[rows.index[0]]}'")
        published = published[published.model == rows.model.iloc[0]]
        for method in (*METHODS, *OTHERS):
            style, ours = _STYLES[method], rows[rows.method == method]
            if ours.empty:
                continue
            theirs = published[published.method == method].sort_values("reported_xi")
            if method == "base":
                axes.axhline(_mean(ours), color=style.colour, linewidth=1.4)
                for y in theirs.test_accuracy:
                    axes.axhline(100 * y, color=style.colour, linewidth=4, alpha=0.18)
            else:
                axes.plot(theirs.reported_xi, 100 * theirs.test_accuracy, color=style.colour, linewidth=4, alpha=0.18)
                for rule, of_rule in ours.groupby("rule"):
                    _line(axes, of_rule, "xi_actual", style, _RULE_LINES.get(str(rule), "-"))
            legend.append(_entry(LABELS[method], style, bare=method == "base"))
        rules = [rule for rule in _RULE_LINES if (rows.rule == rule).any()]
        if len(rules) > 1:
            legend += [Line2D([], [], color="#333a45", linestyle=_RULE_LINES[r], label=f"ADC, {r}") for r in rules]
        if not published.empty:
            legend.append(Line2D([], [], color="#333a45", linewidth=4, alpha=0.18, label="reported (224 px, 3 seeds)"))
        axes.set(xlabel="compression ratio really sent, xi", ylabel="test accuracy, %", title=title(rows))
        axes.legend(handles=legend, framealpha=1, edgecolor="none", fontsize=9, loc="lower right")
        _save(drawing, path)


def _fig3(rows: pd.DataFrame, results: Results, path: Path) -> None:
    rows = rows.assign(
        batch=[float(o["compressor.batch_ratio"]) for o in rows.options],
        token=[float(o["compressor.token_ratio"]) for o in rows.options],
    )
    with figure(11, 4.6) as drawing:
        panels = (("final_test_accuracy", "validation accuracy, %", 100), ("xi_actual", "xi really sent", 1))
        for axes, (column, label, factor) in zip(drawing.subplots(1, 2), panels):
            cells = rows.pivot_table(index="token", columns="batch", values=column, aggfunc=mean)
            grid = cells.sort_index(ascending=False) * factor
            image = axes.imshow(grid, cmap="viridis", aspect="auto")
            axes.set_xticks(range(len(grid.columns)), [f"{x:g}" for x in grid.columns])
            axes.set_yticks(range(len(grid.index)), [f"{y:g}" for y in grid.index])
            axes.set(xlabel="T/B", ylabel="k/n", title=f"{title(rows)}: {label}")
            plain_axes(axes)
            _write_cells(axes, grid)
            drawing.colorbar(image, ax=axes)
        _save(drawing, path)


def _write_cells(axes: Axes, grid: pd.DataFrame) -> None:
    middle = (grid.max().max() + grid.min().min()) / 2
    for (y, x), value in np.ndenumerate(grid.to_numpy()):
        if np.isfinite(value):
            text = f"{value:.1f}" if middle > 1 else f"{value:.2f}"
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if value < middle else "black")


def _fig5(rows: pd.DataFrame, results: Results, path: Path) -> None:
    ratios = sorted({round(v, 3) for v, m in zip(rows.value, rows.method) if m in ("adc", "topk", "bottlenet")})
    with figure(4.4 * max(1, len(ratios)), 4) as drawing:
        for axes, ratio in zip(drawing.subplots(1, max(1, len(ratios)), squeeze=False)[0], ratios or [None]):
            for _, row in rows.iterrows():
                point, style = row.point, _STYLES[row.method]
                curve = results.curve(point)
                if curve is None or not _in_regime(row, ratio, ratios):
                    continue
                scored = curve.dropna(subset="test_accuracy")
                bits = (scored.uplink_bits + scored.downlink_bits) / 1e9
                axes.plot(bits, 100 * scored.test_accuracy, color=style.colour, marker=style.marker, markersize=3)
            axes.set(xlabel="sent, gigabits", ylabel="test accuracy, %", title=f"{title(rows)}, near {ratio}")
            present = [m for m in METHODS if (rows.method == m).any()]
            axes.legend(handles=[_entry(LABELS[m], _STYLES[m]) for m in present], frameon=False, fontsize=8)
        _save(drawing, path)


def _in_regime(row: pd.Series, ratio: float | None, ratios: Sequence[float]) -> bool:
    """Whether a run belongs to a panel: C3-SL, whose 1/R is coarse, to the nearest."""
    if row.method == "base" or ratio is None:
        return True
    own = 1 / row.value if row.method == "c3sl" else row.value
    return min(ratios, key=lambda other: abs(other - own)) == ratio


def _fig6(rows: pd.DataFrame, results: Results, path: Path) -> None:
    rows = rows.assign(batch=[int(o.get("batch_size", 128)) for o in rows.options])
    _ablation(rows, "batch", "batch size", path, log=True)


def _fig7(rows: pd.DataFrame, results: Results, path: Path) -> None:
    rows = rows.assign(split=[int(o.get("model.split_point", 3)) for o in rows.options])
    _ablation(rows, "split", "split point", path, log=False)


def _ablation(rows: pd.DataFrame, column: str, label: str, path: Path, *, log: bool) -> None:
    """Accuracy over one setting: a colour for each method, as in Figure 4, and a kind of line for each ratio."""
    with figure(8, 4.4) as drawing:
        axes = drawing.subplots()
        lines = dict(zip(sorted(rows.value.unique()), cycle(("-", "--", ":", "-."))))
        legend = []
        for (method, value), group in rows.groupby(["method", "value"]):
            style, line = _STYLES[str(method)], lines[value]
            _line(axes, group, column, style, line)
            legend.append(_entry(f"{LABELS[str(method)]} {value:g}", style, line=line))
        if log:
            axes.set_xscale("log", base=2)
        ticks = sorted(rows[column].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set(xlabel=label, ylabel="test accuracy, %", title=title(rows))
        axes.legend(handles=legend, frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1), handlelength=3)
        _save(drawing, path)


def _line(axes: Axes, rows: pd.DataFrame, column: str, style: Style, line: str) -> None:
    """Mean over seeds, with their range; no point where a run diverged."""
    groups = ["value", column] if column != "xi_actual" else ["value"]
    points = rows.groupby(groups, as_index=False, dropna=False).agg(
        x=(column, "mean"), mean=("final_test_accuracy", mean), low=("final_test_accuracy", "min"),
        high=("final_test_accuracy", "max"),
    )  # fmt: skip
    points = points.sort_values("x")
    span = [100 * (points["mean"] - points.low), 100 * (points.high - points["mean"])]
    axes.errorbar(
        points.x, 100 * points["mean"], yerr=span, color=style.colour, marker=style.marker, markersize=5, capsize=2,
        linestyle=line,
    )  # fmt: skip


def _mean(rows: pd.DataFrame) -> float:
    return 100 * mean(rows.final_test_accuracy)


def _entry(label: str, style: Style, *, bare: bool = False, line: str = "-") -> Line2D:
    marker = "" if bare else style.marker
    return Line2D([], [], color=style.colour, marker=marker, markersize=5, linestyle=line, label=label)


def _save(drawing: Figure, path: Path) -> None:
    drawing.savefig(path, dpi=130)


_FIGURES: dict[str, Callable[[pd.DataFrame, Results, Path], None]] = {
    "rows": _accuracy_over_xi,
    "fig1": _accuracy_over_xi,
    "fig3": _fig3,
    "fig4": _accuracy_over_xi,
    "fig5": _fig5,
    "fig6": _fig6,
    "fig7": _fig7,
}
