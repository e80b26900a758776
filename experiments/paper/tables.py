"""The paper's tables as text, ours beside what is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from experiments.paper.protocol import METHODS, RATIOS, RULES, VECTORS, values
from experiments.paper.reported import reported
from experiments.point import Point
from experiments.results import Results, told
from experiments.seeds import like_for_like
from flsplit.ledger.prices import Tally


def table1(scale: str) -> str:
    """Table 1 in numbers: what a step costs with DeiT-T on CIFAR-100 and B=128, in the ledger's three prices."""
    lines = [
        f"{'method':12} {'parameter':>9}  {'nominal':>8} {'actual up':>9} {'actual down':>11} {'actual':>8} {'wire':>8}"
    ]
    base = Point(scale=scale, dataset="cifar100", model="deit_tiny", method="base", seed=0)
    for method in METHODS:
        for rule, value in product(RULES if method == "adc" else (None,), values(method, sorted(RATIOS))):
            point = replace(base, method=method, value=value, rule=rule)
            name = method if rule in (None, "sqrt") else f"  {rule}"
            lines.append(f"{name:12} {point.parameter:>9}  {_prices(point, base.step())}")
    lines.append("Ratios to `base`. nominal: Table 1, mean of both ways; wire: packed bytes, headers included.")
    return "\n".join(lines)


def _prices(point: Point, whole: Tally) -> str:
    step = point.step()
    up, down = step.uplink_bits / whole.uplink_bits, step.downlink_bits / whole.downlink_bits
    wire = step.wire_bytes / whole.wire_bytes
    return f"{point.xi_nominal():8.4f} {up:9.4f} {down:11.4f} {(up + down) / 2:8.4f} {wire:8.4f}"


def table2(results: Results, points: Sequence[Point]) -> str:
    """Accuracy of ADC by clustering vector and ratio, the reported value in brackets."""
    theirs = reported().query("figure == 'table2'")
    there = like_for_like(points, results)
    lines = []
    for dataset in dict.fromkeys(point.dataset for point in points):
        ratios = sorted({point.value for point in points if point.value is not None})
        lines.append(f"{dataset:12}" + "".join(f"{f'xi={ratio:g}':>18}" for ratio in ratios))
        for vector in ("cls_score", *VECTORS):
            option = f"compressor.vector={vector}"
            cells = []
            for ratio in ratios:
                own = [
                    row.final_test_accuracy
                    for point in there
                    if point.dataset == dataset and point.value == ratio
                    and (option in point.options or (vector == "cls_score" and not point.options))
                    and (row := results.row(point)) is not None
                ]  # fmt: skip
                known = theirs[(theirs.dataset == dataset) & (theirs.vector == vector)]
                known = known[known.parameter.astype(float) == ratio].test_accuracy
                ours = told(sum(own) / len(own), ".4f") if own else "-"
                cells.append(f"{ours} ({known.iloc[0]:.4f})" if len(known) else f"{ours} (-)")
            lines.append(f"{vector:12}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join([*lines, "Ours, mean over seeds; in brackets what the paper prints."])
