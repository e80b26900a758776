"""What the studies of the link have in common: their scale, seeds, runs, and how methods look."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from experiments.point import Point
from flsplit.report.style import Style

SCALE = "link-cpu"
TASK = "DeiT-T on the superclasses of CIFAR-100, 64 px, 2,560 images"
SEEDS = (43422, 51)
_METHODS = (("base", None), ("adc", 0.2), ("adc", 0.1), ("topk", 0.2), ("topk", 0.1))
STYLES = {method: Style.of(index) for method, index in zip(_METHODS, (6, 5, 0, 1, 2))}


def run_of(method: str, value: float | None, seed: int, options: Sequence[str]) -> Point:
    """One client's run of a method, over the link that `options` say."""
    return Point(
        scale=SCALE, dataset="cifar100", model="deit_tiny", method=method, value=value,
        rule="sqrt" if method == "adc" else None, seed=seed, options=tuple(options),
    )  # fmt: skip


def name(method: str, value: float | None) -> str:
    """A method as figures and tables call it."""
    return method if value is None or pd.isna(value) else f"{method} {value:g}"


def span(low: float, high: float, *, of: float) -> str:
    """The range of a mean over seeds, as tables have it; blank where there is no mean."""
    return f"{'' if pd.isna(of) else f'{low:6.2f}-{high:6.2f}':13}"
