"""What ADC costs and gains with N clients whose data differ, at equal total communication (activations and models)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import inf
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.point import Point
from experiments.results import Results, told
from flsplit.report.style import Style, figure

CLIENTS = (1, 5, 10, 20)
ALPHAS = (inf, 0.5, 0.1)
STRATEGIES = {"splitfed_v1": (), "splitfed_v2": (), "parallel": ("strategy.sync=round",)}  # and their options
METHODS = (("base", None), ("adc", 0.1), ("adc", 0.2), ("topk", 0.1))
SEEDS = (43422,)
_COLOURS = {method: Style.of(index) for method, index in zip(METHODS, (6, 0, 5, 2))}
_LINES = {"splitfed_v1": "-", "splitfed_v2": "--", "parallel": ":"}
_ONE = (1, None, "splitfed_v1")  # no strategy and no alpha to tell apart
_CORE = (10, 0.5, "splitfed_v1")  # clients, alpha and strategy around which the core of the grid lies


def points(
    seeds: Sequence[int] = SEEDS, options: Sequence[str] = (), *, scale: str = "study", core: bool = False
) -> list[Point]:
    """One run each: the centre of the grid, the rest of its core, and all others; every method side by side.

    Args:
        seeds: of the runs.
        options: overrides for every run.
        scale: a key of `experiments.point.SCALES`.
        core: only what differs from N = 10, alpha = 0.5, `splitfed_v1` in one thing at most, and N = 1.
    """
    several = product([n for n in CLIENTS if n > 1], ALPHAS, STRATEGIES)
    found = [
        Point(
            scale=scale, dataset="cifar100", model="deit_tiny", method=method, value=value,
            rule="sqrt" if method == "adc" else None, seed=seed, clients=clients, strategy=strategy,
            partition="iid" if alpha is None else "dirichlet", alpha=alpha,
            options=(*(STRATEGIES[strategy] if clients > 1 else ()), *options),
        )
        for seed, (clients, alpha, strategy), (method, value) in product(seeds, [*several, _ONE], METHODS)
    ]  # fmt: skip
    return [point for point in sorted(found, key=_distance) if not core or _distance(point) <= 1]


def _distance(point: Point) -> int:
    """In how many things a point differs from the centre of the grid."""
    if point.clients == 1:
        return 1
    return sum(a != b for a, b in zip((point.clients, point.alpha, point.strategy), _CORE))


def gather(points: Sequence[Point], results: Results) -> pd.DataFrame:
    """The rows that there are, each with its point."""
    found = [(point, results.row(point)) for point in points]
    return pd.DataFrame([{**row.to_dict(), "point": point} for point, row in found if row is not None])


def table(rows: pd.DataFrame) -> str:
    """Final accuracy of every row, and what it sent."""
    lines = [
        f"{'clients':>7} {'alpha':>6} {'strategy':12} {'method':6} {'parameter':>9} {'accuracy':>8} {'best':>6} "
        f"{'samples':>8} {'activations Gb':>14} {'models Gb':>9} {'xi':>6}"
    ]
    order = ["clients", "alpha", "strategy", "method", "parameter"]
    for _, row in rows.sort_values(order, na_position="first").iterrows():
        one = row.clients == 1
        lines.append(
            f"{row.clients:7} {'-' if one else format(row.alpha, 'g'):>6} {'-' if one else row.strategy:12} "
            f"{row.method:6} {row.point.value or '':>9} {told(row.final_test_accuracy, '8.4f')} "
            f"{_or_dash(row.best_test_accuracy)} {row.samples:8} {(row.uplink_bits + row.downlink_bits) / 1e9:14.2f} "
            f"{row.sync_bits / 1e9:9.2f} {row.xi_actual:6.3f}"
        )
    return "\n".join(lines)


def _or_dash(accuracy: float) -> str:
    return f"{'-':>6}" if pd.isna(accuracy) else f"{accuracy:6.4f}"


def draw(rows: pd.DataFrame, results: Results, folder: Path, options: Sequence[str] = ()) -> list[Path]:
    """Accuracy over everything sent: a file per number of clients, with a panel per alpha.

    Args:
        rows: from `gather`.
        results: their curves.
        folder: where the images go.
        options: what all rows have beside the study's own settings; part of titles and names.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for (scale, clients), of_size in rows.groupby(["scale", "clients"]):
        alphas = sorted(of_size.alpha.dropna().unique(), reverse=True) or [None]
        with figure(4.6 * len(alphas) + 1.4, 4.4) as drawing:
            panels = drawing.subplots(1, len(alphas), squeeze=False, sharey=True)[0]
            for axes, alpha in zip(panels, alphas):
                for _, row in of_size[(of_size.alpha == alpha) | of_size.alpha.isna()].iterrows():
                    _plot(axes, row.point, results)
                axes.set(xlabel="sent, activations and models, gigabits")
                axes.set_title("" if alpha is None else f"Dirichlet alpha = {alpha:g}")
            panels[0].set_ylabel("test accuracy, %")
            size = "one client" if clients == 1 else f"{clients} clients"
            drawing.suptitle(f"{size}, DeiT-T on CIFAR-100 ({', '.join([scale, *options])})")
            drawing.legend(handles=_legend(of_size), loc="outside right center", frameon=False, fontsize=9)
            path = folder / f"{'-'.join(['adc_multi_client', scale, f'n{clients}', *options])}.png"
            drawing.savefig(path, dpi=130)
        drawn.append(path)
    return drawn


def _plot(axes: Axes, point: Point, results: Results) -> None:
    curve = results.curve(point)
    if curve is None:
        return
    scored = curve.dropna(subset="test_accuracy")
    sent, style = scored.uplink_bits + scored.downlink_bits + scored.sync_bits, _COLOURS[(point.method, point.value)]
    axes.plot(
        sent / 1e9, 100 * scored.test_accuracy, color=style.colour, marker=style.marker, markersize=4,
        linestyle=_LINES[point.strategy],
    )  # fmt: skip


def _legend(rows: pd.DataFrame) -> list[Line2D]:
    there = {(point.method, point.value) for point in rows.point}
    methods = [
        Line2D([], [], color=style.colour, marker=style.marker, markersize=4, label=f"{method} {value or ''}".strip())
        for (method, value), style in _COLOURS.items()
        if (method, value) in there
    ]
    strategies = [
        Line2D([], [], color="#333a45", linestyle=line, label=strategy)
        for strategy, line in _LINES.items()
        if ((rows.strategy == strategy) & (rows.clients > 1)).any()
    ]
    return [*methods, *strategies]
