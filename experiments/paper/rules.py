"""ADC's three rules side by side: at equal real cost, at equal samples, and at equal charged cost.

A rule says how a ratio is divided between samples and tokens. What it then really sends differs, and so does what it
learns; which one is ahead depends on what is held equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
import pandas as pd

from experiments.paper.protocol import RULES
from experiments.paper.reported import published
from experiments.point import SCALES, Point
from experiments.results import Results, told

CHARGED = "budget.charge=nominal"  # as the authors' code counts: samples times the ratio asked for
_DEARER = "release2026"  # sends more than it is charged for, so equal charged cost takes a longer run


def points(scale: str, ratios: Sequence[float], rules: Sequence[str] = RULES, seed: int = 43422) -> list[Point]:
    """What is compared: every ratio by every rule, and the longer runs.

    Args:
        scale: a key of `SCALES`.
        ratios: xi.
        rules: of `RULES`.
        seed: of all.
    """
    return [
        Point(
            scale=scale, dataset="cifar100", model="deit_tiny", method="adc", value=ratio, rule=rule, seed=seed,
            options=options,
        )
        for options in ((), (CHARGED,))
        for ratio in ratios
        for rule in rules
        if not options or rule == _DEARER
    ]  # fmt: skip


def gather(wanted: Sequence[Point], results: Results) -> pd.DataFrame:
    """A row for each ratio, rule and seed that has been run.

    Returns:
        columns `ratio`, `rule`, `seed`, `sent` (xi really sent), `samples` (thousands, seen when as many bits are
        sent as in ten epochs of `base`), and accuracies in percent, NaN where no run says: `real` (then), `equally`
        (after as many samples as the rule with the fewest has seen by then), `charged` (when samples times the ratio
        asked for are ten epochs), `published`. Between two evaluations, accuracy is taken to grow evenly.
    """
    found = []
    for point in (point for point in wanted if not point.options):
        row = results.row(point)
        if row is not None:
            longer = [other for other in wanted if other.options and _same(other, point)]
            scale = SCALES[point.scale]
            budget = scale.base_epochs * (scale.images or 50_000) / (point.value or nan)
            charged = [_after(results, run, budget) for run in (point, *longer)]
            found.append({
                "ratio": point.value, "rule": point.rule, "seed": point.seed,
                "sent": row.xi_actual, "samples": row.samples / 1000,
                "real": 100 * row.final_test_accuracy, "equally": nan,
                "charged": next((accuracy for accuracy in charged if accuracy == accuracy), nan),
                "published": 100 * published("cifar100", "deit_tiny", "adc", f"{point.value:g}"), "point": point,
            })  # fmt: skip
    rows = pd.DataFrame(found)
    if rows.empty:
        return rows
    fewest = 1000 * rows.groupby(["ratio", "seed"]).samples.transform("min")
    rows["equally"] = [_after(results, point, samples) for point, samples in zip(rows.point, fewest)]
    return rows.drop(columns="point")


def table(rows: pd.DataFrame) -> str:
    """`gather`'s rows in Markdown; with their seeds where there are several."""
    several = rows.seed.nunique() > 1
    lines = [
        f"| ratio | rule |{' seed |' * several} really sent | samples, thousands | equal real cost | equal samples "
        "| equal charged cost | published |",
        "|---|---|---|---|---|---|---|---|" + "---|" * several,
    ]
    for row in rows.itertuples():
        others = (row.equally, row.charged, row.published)
        said = [told(row.real / 100, ".1%"), *("-" if pd.isna(value) else f"{value:.1f}%" for value in others)]
        which = f"| {row.ratio:g} | `{row.rule}` |" + f" {row.seed} |" * several
        lines.append(f"{which} {row.sent:.3f} | {row.samples:.0f} | {' | '.join(said)} |")
    return "\n".join(lines)


def _same(one: Point, other: Point) -> bool:
    return (one.value, one.rule, one.seed) == (other.value, other.rule, other.seed)


def _after(results: Results, point: Point, samples: float) -> float:
    """Accuracy of a run after so many samples, percent.

    NaN if it has not seen them (within 1%, a part of an epoch), or has diverged by then.
    """
    curve = results.curve(point)
    if curve is None or results.row(point) is None:
        return nan
    scored = curve.dropna(subset="test_accuracy")
    if scored.empty or scored.samples.iloc[-1] < 0.99 * samples:
        return nan
    return float(100 * np.interp(samples, [0, *scored.samples], [0, *scored.test_accuracy]))
