"""What quantisation adds to compression: accuracy over bits, for methods at 32 to 2 bits a number, one client.

A method trains equally long at all bits, as long as those of four epochs without compression last it at 32:
compression buys epochs, quantisation only makes them cheaper. So a line compares bits, and two lines compare methods
as the paper does; on the 20 superclasses of CIFAR-100, which are learned sooner than its 100 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from experiments.point import Point
from experiments.results import Results, mean, told
from experiments.seeds import like_for_like
from experiments.study.link import SCALE, SEEDS, STYLES, TASK, name, run_of, span
from flsplit.report.style import figure, plain_log

BITS = (32, 16, 8, 4, 2)
METHODS = (("base", None), ("adc", 0.2), ("adc", 0.1), ("topk", 0.1))


def points(seeds: Sequence[int] = SEEDS, options: Sequence[str] = ()) -> list[Point]:
    """One run each, all methods at a number of bits before the next; a seed before the next.

    Args:
        seeds: of the runs.
        options: overrides for every run.
    """
    return [
        run_of(method, value, seed, (*_quantizer(bits), *options))
        for seed, bits, (method, value) in product(seeds, BITS, METHODS)
    ]


def gather(wanted: Sequence[Point], results: Results) -> pd.DataFrame:
    """A row for each method and number of bits that has been run: means over seeds, and their range.

    The seeds are the same in all rows; see `like_for_like`.
    """
    found = []
    for point in like_for_like(wanted, results):
        row = results.row(point)
        assert row is not None
        found.append({
            "method": point.method, "value": point.value, "bits": bits_of(point), "seed": point.seed,
            "gigabits": (row.uplink_bits + row.downlink_bits) / 1e9, "accuracy": 100 * row.final_test_accuracy,
        })  # fmt: skip
    if not found:
        return pd.DataFrame()
    return pd.DataFrame(found).groupby(["method", "value", "bits"], dropna=False, sort=False, as_index=False).agg(
        gigabits=("gigabits", "mean"), accuracy=("accuracy", mean), low=("accuracy", "min"),
        high=("accuracy", "max"), seeds=("seed", "nunique"),
    )  # fmt: skip


def table(rows: pd.DataFrame) -> str:
    """Accuracy of every row and what it sent; then, for each accuracy, the row that reaches it with the fewest bits."""
    lines = [f"{'method':10} {'bits':>4} {'accuracy':>8} {'range':>13} {'gigabits':>9} {'seeds':>5}"]
    for row in rows.itertuples():
        lines.append(
            f"{name(row.method, row.value):10} {row.bits:4} {told(row.accuracy, '8.2f')} "
            f"{span(row.low, row.high, of=row.accuracy)} {row.gigabits:9.4f} {row.seeds:5}"
        )
    best = rows.dropna(subset="accuracy").sort_values("gigabits")
    best = best[best.accuracy > best.accuracy.cummax().shift(fill_value=-1.0)]
    ways = "; ".join(
        f"{row.accuracy:.1f}% {name(row.method, row.value)} at {row.bits} bits ({row.gigabits:.3g} Gb)"
        for row in best.itertuples()
    )
    return "\n".join([*lines, f"No row has a higher accuracy with fewer bits than these: {ways}."])


def draw(rows: pd.DataFrame, results: Results, folder: Path, options: Sequence[str] = ()) -> list[Path]:
    """Accuracy over bits sent, a line for each method, its points told apart by their bits.

    Args:
        rows: from `gather`.
        results: not needed; every study is handed its table.
        folder: where the image goes.
        options: what all rows have beside the study's own settings; part of the name.

    Returns:
        the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with figure(7, 4.6) as drawing:
        axes = drawing.subplots()
        for method in METHODS:
            style = STYLES[method]
            own = rows[[name(m, v) == name(*method) for m, v in zip(rows.method, rows.value)]].dropna(subset="accuracy")
            own = own.sort_values("gigabits")
            reach = [own.accuracy - own.low, own.high - own.accuracy]
            if not own.empty:
                axes.errorbar(
                    own.gigabits, own.accuracy, yerr=reach, color=style.colour, marker=style.marker, markersize=5,
                    capsize=2, label=name(*method),
                )  # fmt: skip
            for row in own.itertuples():
                axes.annotate(
                    str(row.bits), (row.gigabits, row.accuracy), (4, 4), textcoords="offset points", fontsize=8
                )
        axes.set_xscale("log")
        plain_log(axes.xaxis)
        axes.set(xlabel="activations and gradients sent, gigabits (log scale)", ylabel="test accuracy, %")
        axes.set_title(f"{TASK}; bits of a number ({SCALE})", fontsize=10)
        axes.legend(frameon=False, fontsize=9)
        path = folder / f"{'-'.join(['quantised_adc', SCALE, *options])}.png"
        drawing.savefig(path, dpi=130)
    return [path]


def bits_of(point: Point) -> int:
    """Bits of each number that a run sends."""
    given = dict(option.split("=", 1) for option in point.options)
    return {"bf16": 16, "uniform": int(given.get("quantizer.bits", 0))}.get(given.get("quantizer", "none"), 32)


def _quantizer(bits: int) -> tuple[str, ...]:
    if bits == 32:
        return ()
    return (
        ("quantizer=bf16",) if bits == 16 else ("quantizer=uniform", f"quantizer.bits={bits}", "quantizer.range=token")
    )
