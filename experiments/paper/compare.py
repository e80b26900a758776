"""Our rows beside the published ones: how high at the full scale, in which order and how far below `base` at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import inf, log, nan

import pandas as pd
from scipy.stats import t as student

from experiments.paper.protocol import METHODS, OTHERS, RATIOS
from experiments.paper.reported import published
from experiments.point import SCALES, Point
from experiments.results import mean, told

WITHIN = 0.007  # what counts as reproduced: 0.7 points of accuracy
_PANEL = ["dataset", "model", "precision"]
_KEY = [*_PANEL, "method", "parameter", "rule"]


def compare(rows: pd.DataFrame, scale: str, points: Sequence[Point] | None = None) -> str:
    """Every row of a scale beside the published point of Figure 4, and what can be said of all of them.

    At the full scale accuracies are compared; at a smaller one the order of methods at the same ratio, as Kendall's
    tau over pairs and over the seeds that all of them have, and what each loses against `base`.

    Args:
        rows: results.csv.
        scale: which of them.
        points: only these; None for all.
    """
    rows = rows[rows.scale == scale]
    if points is not None:
        wanted = {(p.dataset, p.model, p.precision, p.method, p.parameter, p.rule or "", p.seed) for p in points}
        rows = rows[[key in wanted for key in _keys(rows, [*_KEY, "seed"])]]
    if rows.empty:
        return f"no rows of {scale} scale yet"
    found = besidepublished(rows)
    lines = [
        f"{'dataset':9} {'model':10} {'method':10} {'parameter':16} {'rule':12} {'published':>9} {'ours':>8} {'+-':>5} "
        f"{'diff':>6} {'within':>6} {'published':>10} {'ours':>7} {'xi sent':>7}  conditions"
    ]
    for row in found.itertuples():
        high = scale == "full"
        within = "-" if not high or pd.isna(row.difference) else "yes" if abs(row.difference) <= WITHIN else "no"
        lines.append(
            f"{row.dataset:9} {row.model:10} {row.method:10} {row.parameter:16} {row.rule:12} "
            f"{_points(row.published, 9)} {told(100 * row.ours, '8.2f')} {_points(row.half, 5)} "
            f"{_points(row.difference if high else nan, 6, '+')} {within:>6} {_points(row.published_loss, 10, '+')} "
            f"{_points(row.loss, 7, '+')} {row.xi:7.4f}  {scale}, {row.seeds} seed{'s' * (row.seeds > 1)}, "
            f"{row.precision}, {row.device}, {row.commit}"
        )
    lines.append(
        f"Test accuracy in percent. +-: half the 95% interval of the mean over seeds (Student's t). diff: in points; "
        f"within: {100 * WITHIN:g} of them. The second published and ours: points above `base` of the same data, "
        "model, precision and seeds."
    )
    if scale == "full":
        lines += _nearest_rule(found, rows)
    else:
        size, images = SCALES[scale].size, SCALES[scale].images
        lines.append(f"{scale}: {size} px and {images:,} training images, so not to be compared in height.")
    return "\n".join([*lines, *_orders(found, rows)])


def besidepublished(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of rows of one scale, with what is published.

    Returns:
        a row per data, model, precision, method, parameter and rule, all accuracies as fractions: `ours` (NaN where a
        seed diverged), `half` (of the 95% interval, NaN of one seed), `published`, `difference`, `loss` and
        `published_loss` (accuracy above `base`, which is mostly negative).
    """
    found = rows.groupby(_KEY, sort=False, as_index=False).agg(
        ours=("final_test_accuracy", mean), deviation=("final_test_accuracy", "std"), seeds=("seed", "nunique"),
        xi=("xi_actual", "mean"), device=("device", lambda of: " / ".join(dict.fromkeys(of))),
        commit=("commit", "last"),
    )  # fmt: skip
    spread = (found.deviation / found.seeds.pow(0.5)).where(found.ours.notna())
    found["half"] = [s * student.ppf(0.975, n - 1) if n > 1 else nan for s, n in zip(spread, found.seeds)]
    found["published"] = [published(*key) for key in zip(found.dataset, found.model, found.method, found.parameter)]
    found["difference"] = found.ours - found.published
    base = rows[(rows.method == "base") & (rows.parameter == "")].set_index([*_PANEL, "seed"]).final_test_accuracy
    own = rows[[key in base.index for key in _keys(rows, [*_PANEL, "seed"])]]  # of the seeds that `base` has too
    own = own.assign(loss=own.final_test_accuracy - [base[key] for key in _keys(own, [*_PANEL, "seed"])])
    loss = own.groupby(_KEY).loss.agg(mean)
    found["loss"] = [loss.get(key, nan) for key in _keys(found, _KEY)]
    found["published_loss"] = found.published - [published(*key, "base", "") for key in zip(found.dataset, found.model)]
    order = sorted(found.index, key=lambda at: _order(found.loc[at]))
    return found.loc[order].reset_index(drop=True)


def tau(ours: Sequence[float], published: Sequence[float]) -> float:
    """Kendall's tau-a of two orders of the same things: agreeing pairs less disagreeing ones, over all pairs."""
    signs = [_sign(a - b) * _sign(c - d) for (a, c), (b, d) in combinations(zip(ours, published), 2)]
    return sum(signs) / len(signs) if signs else nan


def _orders(found: pd.DataFrame, rows: pd.DataFrame) -> Iterator[str]:
    """For each panel and rule of ADC, how far methods come in the published order at the same ratio.

    At each ratio over the seeds that all methods have; one of which a seed diverged comes last.
    """
    known, by_seed = found[found.published.notna() & (found.method != "base")], _by_seed(rows)
    for key, panel in known.groupby(_PANEL, sort=False):
        for rule in [rule for rule in dict.fromkeys(panel.rule) if rule] or [""]:
            agreeing, pairs, said = 0.0, 0, []
            near = panel[panel.rule.isin(["", rule])]
            for ratio, group in near.groupby([_ratio(m, p) for m, p in zip(near.method, near.parameter)]):
                shared = _shared(group, by_seed, "method")
                count = len(group) * (len(group) - 1) // 2 if len(shared) else 0
                if count:
                    ours = shared.agg(mean)
                    agreeing += count * tau(list(ours.fillna(-inf)), list(group.published))
                    pairs += count
                    said.append(f"{ratio:g}, {_seeds(shared)}: {_ranked(ours)}")
            if pairs:
                yield (
                    f"Order on {', '.join(key)}{f', ADC by {rule}' if rule else ''}: Kendall's tau with the published "
                    f"order {agreeing / pairs:+.2f} over {pairs} pair{'s' * (pairs > 1)} of methods at the same ratio "
                    f"({'; '.join(said)})."
                )


def _ranked(ours: pd.Series) -> str:
    ranked = ours.sort_values(ascending=False).items()
    return " > ".join(f"{method} (diverged)" if pd.isna(accuracy) else str(method) for method, accuracy in ranked)


def _nearest_rule(found: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Which rule comes nearest to the published curve, over the ratios and seeds that all rules at hand share."""
    lines = []
    adc, by_seed = found[(found.method == "adc") & found.difference.notna()], _by_seed(rows)
    for key, panel in adc.groupby(_PANEL, sort=False):
        gaps = {}
        for ratio, group in panel.groupby(panel.parameter.astype(float)):
            shared = _shared(group, by_seed, "rule")
            if len(group) == panel.rule.nunique() > 1 and len(shared):
                at = f"{ratio:g} ({_seeds(shared)})"
                gaps[at] = (shared.agg(mean) - group.published.iloc[0]).abs()
        if gaps:
            error = pd.DataFrame(gaps).mean(axis=1).sort_values()
            said = "; ".join(f"{rule} {100 * gap:.2f}" for rule, gap in error.items())
            lines.append(
                f"Mean distance of ADC from the published curve on {', '.join(key)}, points, at {', '.join(gaps)}, by "
                f"rule: {said}. Nearest: {error.index[0]}."
            )
    return lines or ["Which of ADC's rules fits best cannot be said: no ratio and seed has rows of all rules."]


def _by_seed(rows: pd.DataFrame) -> dict[tuple[object, ...], pd.Series]:
    """The accuracies of each row of `besidepublished`, by seed."""
    return {key: of.set_index("seed").final_test_accuracy for key, of in rows.groupby(_KEY)}


def _shared(group: pd.DataFrame, by_seed: dict[tuple[object, ...], pd.Series], name: str) -> pd.DataFrame:
    """Accuracies of rows of `besidepublished`, a column each, called as in `name`, over the seeds that all have."""
    return pd.concat([by_seed[key] for key in _keys(group, _KEY)], axis=1, join="inner", keys=group[name])


def _seeds(shared: pd.DataFrame) -> str:
    return f"seed{'s' * (len(shared) > 1)} {', '.join(map(str, shared.index))}"


def _ratio(method: str, parameter: str) -> float:
    """The ratio of the figures that a parameter stands for; R of C3-SL is nearest to 1/R."""
    value = float(parameter)
    return min(RATIOS, key=lambda ratio: abs(log(ratio * value))) if method == "c3sl" else value


def _order(row: pd.Series) -> tuple[object, ...]:
    words = row.parameter.split()
    numbers = tuple((float(w), "") if w.replace(".", "", 1).isdigit() else (0.0, w) for w in words)
    return (row.dataset, row.model, row.precision, (*METHODS, *OTHERS).index(row.method), numbers, row.rule)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _keys(rows: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[object, ...]]:
    return rows[list(columns)].itertuples(index=False, name=None)


def _points(fraction: float, width: int, sign: str = "") -> str:
    return f"{'-':>{width}}" if pd.isna(fraction) else format(100 * fraction, f"{sign}{width}.2f")
