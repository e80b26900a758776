"""The paper's tables as text, and ours beside what is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pandas as pd

from experiments.paper.protocol import METHODS, RATIOS, RULES, VECTORS, values
from experiments.paper.reported import reported
from experiments.point import Point
from experiments.results import Results
from flsplit.ledger.prices import Tally

REDUCED_NOTE = (
    "Reduced scale (96 px, 2,500 training images, one seed): not comparable with the reported numbers in height, only "
    "in order; which of ADC's rules the authors ran is not told by it."
)


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
                    for point in points
                    if point.dataset == dataset and point.value == ratio
                    and (option in point.options or (vector == "cls_score" and not point.options))
                    and (row := results.row(point)) is not None
                ]  # fmt: skip
                known = theirs[(theirs.dataset == dataset) & (theirs.vector == vector)]
                known = known[known.parameter.astype(float) == ratio].test_accuracy
                ours = f"{sum(own) / len(own):.4f}" if own else "-"
                cells.append(f"{ours} ({known.iloc[0]:.4f})" if len(known) else f"{ours} (-)")
            lines.append(f"{vector:12}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join([*lines, "Ours, mean over seeds; in brackets what the paper prints."])


def compare(rows: pd.DataFrame, scale: str, points: Sequence[Point] | None = None) -> str:
    """Reported, ours, difference and conditions, for every point of Figure 4 that has a row.

    Args:
        rows: results.csv.
        scale: which of them.
        points: only these; None for all.
    """
    rows = rows[rows.scale == scale]
    if points is not None:
        wanted = {(p.dataset, p.model, p.method, p.parameter, p.rule or "", p.seed) for p in points}
        keys = rows[["dataset", "model", "method", "parameter", "rule", "seed"]].itertuples(index=False, name=None)
        rows = rows[[key in wanted for key in keys]]
    if rows.empty:
        return f"no rows of {scale} scale yet"
    by = ["dataset", "model", "method", "parameter", "rule"]
    means = rows.groupby(by, sort=False).agg(
        ours=("final_test_accuracy", "mean"), seeds=("seed", "nunique"), xi=("xi_actual", "mean"),
        device=("device", "first"), commit=("commit", "last"),
    )  # fmt: skip
    head = (
        f"{'dataset':9} {'model':10} {'method':10} {'parameter':22} {'rule':12} {'reported':>8} {'ours':>7} "
        f"{'diff':>7} {'xi sent':>7}  conditions"
    )
    means["_order"] = [(_order(key[:2]), METHODS.index(key[2]), _order(key[3:4]), key[4]) for key in means.index]
    lines = [head]
    gaps: dict[str, dict[float, float]] = {}
    for key, row in means.sort_values("_order").iterrows():
        dataset, model, method, parameter, rule = key  # type: ignore[misc]
        known = _reported(dataset, model, method, parameter)
        difference = None if known is None else row.ours - known
        if method == "adc" and difference is not None:
            gaps.setdefault(rule, {})[float(parameter)] = difference
        lines.append(
            f"{dataset:9} {model:10} {method:10} {parameter:22} {rule:12} {_number(known):>8} {row.ours:7.4f} "
            f"{_number(difference, '+'):>7} {row.xi:7.4f}  {scale}, {row.seeds} seed(s), {row.device}, {row.commit}"
        )
    lines += [REDUCED_NOTE] if scale == "reduced" else _best_rule(gaps)
    return "\n".join(lines)


def _order(words: Sequence[str]) -> tuple[tuple[float, str], ...]:
    """Sorts numbers as numbers."""
    return tuple((float(word), "") if word.replace(".", "", 1).isdigit() else (0.0, word) for word in words)


def _best_rule(gaps: dict[str, dict[float, float]]) -> list[str]:
    """Which rule comes nearest to the reported curve, over the ratios that all rules at hand share."""
    if len(gaps) < 2:
        return ["Which of ADC's rules fits best cannot be said: rows of one rule at most."]
    shared = set.intersection(*(set(of_rule) for of_rule in gaps.values()))
    if not shared:
        return ["Which of ADC's rules fits best cannot be said: no ratio has rows of two rules."]
    error = {rule: sum(abs(of_rule[ratio]) for ratio in shared) / len(shared) for rule, of_rule in gaps.items()}
    ranked = sorted(error, key=lambda rule: error[rule])
    ratios = ", ".join(f"{ratio:g}" for ratio in sorted(shared))
    found = "; ".join(f"{rule} {error[rule]:.4f}" for rule in ranked)
    return [f"Mean distance of ADC from the reported curve at {ratios}, by rule: {found}. Nearest: {ranked[0]}."]


def _reported(dataset: str, model: str, method: str, parameter: str) -> float | None:
    table = reported().query("figure == 'fig4'")
    table = table[(table.dataset == dataset) & (table.model == model) & (table.method == method)]
    if method != "base":
        try:
            table = table[(table.parameter.astype(float) - float(parameter)).abs() < 1e-9]
        except ValueError:  # a row that differs from the protocol in something else as well
            return None
    elif parameter:
        return None
    return None if table.empty else float(table.test_accuracy.iloc[0])


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else format(value, f"{sign}.4f")
