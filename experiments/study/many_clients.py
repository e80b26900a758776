"""When ADC pays for many clients: pretrained DeiT-T, LoRA or whole clients, 10 and 50 of them, three degrees of skew.

What there is for skewed labels, and for rounds of few clients, is compared where each belongs.

Everything is compared at the same number of bits, models included, which all clients draw on together. A tenth of
every client's data is held back, on which the final model is tested for each client by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from pathlib import Path

import pandas as pd

from experiments.point import Point
from experiments.results import Results, told
from experiments.seeds import like_for_like
from flsplit.report.seeds import mean_of
from flsplit.report.style import Style, figure

SCALE = "edge-cpu"
SEEDS = (43422, 51)
CLIENTS = (10, 50)
ALPHAS = (inf, 0.3, 0.05)
STRATEGIES = {
    "splitfed_v2": ("strategy.turn=step",),
    "splitfed_v1": (),
    "parallel": ("strategy.sync=round",),
}  # and their options
TUNES = {"lora": (), "all": ("lr=1e-4",)}  # whole clients by the step size of the paper
ALWAYS = ("partition.holdout=0.1",)
CENTRE = (10, 0.3, "splitfed_v2", "lora")


@dataclass(frozen=True)
class Method:
    """What clients send.

    Attributes:
        compressor: its name.
        value: its parameter.
        told: what is special, in a word or two.
        options: overrides beside compressor and parameter that make it so.
    """

    compressor: str
    value: float | None = None
    told: str = ""
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As figures and tables call it."""
        return " ".join(filter(None, (self.compressor, "" if self.value is None else f"{self.value:g}", self.told)))


COHORT = Method("adc", 0.1, "cohort", ("compressor.scope=cohort",))
METHODS = (Method("base"), Method("adc", 0.1), Method("topk", 0.1), COHORT, Method("adc", 0.2))
SKEWED = (
    Method("adc", 0.1, "within class", ("compressor.merge=within_class",)),
    Method("adc", 0.1, "loss by size", ("compressor.loss_weight=size",)),
    Method("adc", 0.1, "by diversity", ("budget.allocation=diversity",)),
    Method("base", None, "logits adjusted", ("strategy.logit_adjustment=1",)),
    Method("base", None, "fedprox", ("strategy.aggregator=fedprox", "strategy.aggregator_args.proximal_mu=0.01")),
)  # what is there for skewed labels
FEW = (
    Method("base", None, "10 a round", ("clients_per_round=10",)),
    Method("base", None, "10 balanced", ("clients_per_round=10", "sampling=balanced")),
)  # and for rounds of few clients
MORE = {CENTRE: SKEWED, (50, *CENTRE[1:]): FEW}
_STYLES = {
    method.name: Style.of(index)
    for method, index in zip((*METHODS, *SKEWED, *FEW), (6, 0, 2, 1, 5, 3, 4, 7, 8, 9, 10, 11), strict=True)
}


def points(seeds: Sequence[int] = SEEDS, options: Sequence[str] = ()) -> list[Point]:
    """One run each: all data in one place, the centre of the grid, then what differs from it in one thing.

    Args:
        seeds: of the runs.
        options: overrides for every run.
    """
    found = []
    for seed in seeds:
        for tune in TUNES:
            found.append(_point(Method("base"), seed, options, tune=tune))
        grid = product(CLIENTS, ALPHAS, STRATEGIES, TUNES)
        for setting in sorted((s for s in grid if _distance(s) <= 1), key=_distance):
            clients, alpha, strategy, tune = setting
            found += [
                _point(method, seed, options, clients=clients, alpha=alpha, strategy=strategy, tune=tune)
                for method in (*METHODS, *MORE.get(setting, ()))
                if method != COHORT or strategy != "splitfed_v1"
            ]
    return found


def _distance(setting: tuple[int, float, str, str]) -> int:
    return sum(a != b for a, b in zip(setting, CENTRE))


def _point(
    method: Method, seed: int, options: Sequence[str], *, tune: str, clients: int = 1, alpha: float | None = None,
    strategy: str = "splitfed_v1",
) -> Point:  # fmt: skip
    own = STRATEGIES[strategy] if clients > 1 else ()
    return Point(
        scale=SCALE, dataset="cifar100", model="deit_tiny", method=method.compressor, value=method.value,
        rule="sqrt" if method.compressor == "adc" else None, seed=seed, clients=clients, strategy=strategy,
        partition="iid" if alpha is None else "dirichlet", alpha=alpha,
        options=(f"model.tune={tune}", *TUNES[tune], *own, *method.options, *ALWAYS, *options),
    )  # fmt: skip


def gather(wanted: Sequence[Point], results: Results) -> pd.DataFrame:
    """A row for each setting and method that has been run: means over seeds, the same in all; see `like_for_like`.

    `accuracy` and `worst` (of the worst tenth of the clients, each on the part of its data that was held back) in
    percent, `models` the share of models in what was sent, in percent.
    """
    rows = []
    for point in like_for_like(wanted, results):
        row = results.row(point)
        assert row is not None
        given = dict(option.split("=", 1) for option in point.options)
        method = max(
            (m for m in (*METHODS, *SKEWED, *FEW) if (m.compressor, m.value) == (point.method, point.value)),
            key=lambda m: len(m.options) if set(m.options) <= set(point.options) else -1,
        )
        bits = row.uplink_bits + row.downlink_bits + row.sync_bits
        rows.append({
            "clients": point.clients, "strategy": point.strategy if point.clients > 1 else "-",
            "alpha": point.alpha, "tune": given["model.tune"],
            "method": method.name,
            "accuracy": 100 * row.final_test_accuracy, "worst": 100 * row.worst_client_accuracy,
            "samples": row.samples, "gigabits": bits / 1e9, "models": 100 * row.sync_bits / bits, "point": point,
        })  # fmt: skip
    if not rows:
        return pd.DataFrame()
    keys = ["clients", "strategy", "alpha", "tune", "method"]
    return (
        pd.DataFrame(rows)
        .groupby(keys, dropna=False, sort=False)
        .apply(_over_seeds, include_groups=False)
        .reset_index()
    )


def _over_seeds(rows: pd.DataFrame) -> pd.Series:
    mean, half = mean_of(rows.accuracy.tolist())  # NaN where a seed diverged
    numbers = rows[["worst", "samples", "gigabits", "models"]].mean(skipna=False)
    return pd.Series({"accuracy": mean, "half": half, **numbers, "seeds": len(rows), "points": list(rows.point)})


def table(rows: pd.DataFrame) -> str:
    """Accuracy of every row, of its worst clients, and what was sent."""
    lines = [
        f"{'clients':>7} {'strategy':11} {'alpha':>5} {'tune':4} {'method':20} {'accuracy':>14} {'worst tenth':>11} "
        f"{'samples':>8} {'Gb':>6} {'models':>6} {'seeds':>5}"
    ]
    for row in rows.itertuples():
        alpha = "-" if pd.isna(row.alpha) else f"{row.alpha:g}"
        half = "" if row.half is None or pd.isna(row.half) else f" ± {row.half:.1f}"
        worst = "-" if pd.isna(row.worst) else f"{row.worst:.1f}"
        lines.append(
            f"{row.clients:7} {row.strategy:11} {alpha:>5} {row.tune:4} {row.method:20} "
            f"{told(row.accuracy, '8.1f')}{half:6} {worst:>11} {row.samples:8.0f} {row.gigabits:6.2f} "
            f"{row.models:5.0f}% {row.seeds:5}"
        )
    return "\n".join([*lines, "percent; ± is half the 95% interval over seeds (Student's t)"])


def draw(rows: pd.DataFrame, results: Results, folder: Path, options: Sequence[str] = ()) -> list[Path]:
    """Accuracy over everything sent: a panel for each setting of which there is more than one method.

    Args:
        rows: from `gather`.
        results: their curves.
        folder: where the image goes.
        options: what all rows have beside the study's own settings; part of the name.

    Returns:
        the file; none where there is nothing to compare.
    """
    settings = rows[rows.clients > 1].groupby(["clients", "strategy", "alpha", "tune"], sort=False)
    shown = [(setting, of_it) for setting, of_it in settings if len(of_it) > 1]
    if not shown:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    with figure(3.9 * columns + 1.8, 3.4 * lines + 0.6) as drawing:
        panels = drawing.subplots(lines, columns, squeeze=False, sharey=True)
        for axes in panels.flat[len(shown) :]:
            axes.set_visible(False)
        for axes, ((clients, strategy, alpha, tune), of_it) in zip(panels.flat, shown):
            for row in of_it.itertuples():
                style = _STYLES[row.method]
                curves = [results.curve(point) for point in row.points]
                for number, curve in enumerate(curve for curve in curves if curve is not None):
                    scored = curve.dropna(subset="test_accuracy")
                    sent = (scored.uplink_bits + scored.downlink_bits + scored.sync_bits) / 1e9
                    axes.plot(
                        sent, 100 * scored.test_accuracy, color=style.colour, marker=style.marker, markersize=4,
                        label=None if number else row.method,
                    )  # fmt: skip
            axes.set_title(f"{clients} clients, {strategy}, alpha {alpha:g}, {tune}", fontsize=9)
            axes.set(xlabel="sent, models included, gigabits")
        for row_of_panels in panels:
            row_of_panels[0].set_ylabel("test accuracy, %")
        named = {label: line for axes in panels.flat for line, label in zip(*axes.get_legend_handles_labels())}
        if named:
            drawing.legend(named.values(), named, loc="outside right center", frameon=False, fontsize=9)
        path = folder / f"{'-'.join(['many_clients', SCALE, *options])}.png"
        drawing.savefig(path, dpi=130)
    return [path]
