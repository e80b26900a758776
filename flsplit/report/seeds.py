"""Runs that differ in their seed alone: which they are, and how well they tell the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from flsplit.report import labels

CONFIDENCE = 0.95
T = TypeVar("T")


def half_width(deviation: T, count: int) -> T:
    """How far a mean over seeds may be from what all seeds would give, with a confidence of 95% (Student's t).

    Args:
        deviation: the standard deviation over seeds (one number, or many), as of a sample.
        count: of the seeds, 2 or more.
    """
    found: T = deviation / np.sqrt(count) * stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)  # type: ignore[operator]
    return found


def mean_of(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of a number over seeds, and half the width of its interval; None for one seed."""
    if len(values) < 2:
        return float(values[0]), None
    return float(np.mean(values)), float(half_width(np.std(values, ddof=1), len(values)))


def by_setting(
    configs: Sequence[Mapping[str, Any]], folders: Sequence[str], keys: Sequence[str] | None = None
) -> list[tuple[str, list[int]]]:
    """Runs in groups, in their order.

    Args:
        configs: of the runs.
        folders: their names.
        keys: settings, as `labels.varied` calls them, whose values make a group; None for all that vary but the seed.
            A run that is another's repetition, its seed included, is in no group with it: it has one of its own.

    Returns:
        for each group what tells it from the others, and the positions of its runs.
    """
    varied = labels.varied(configs)
    runs = list(zip(*(map(labels.alike, values) for values in varied.values()))) or [()] * len(configs)
    chosen = [key for key in varied if key != "seed"] if keys is None else keys
    groups: dict[tuple[str, ...], list[int]] = {}
    for number in range(len(configs)):
        key = tuple(labels.alike(varied[name][number]) for name in chosen)
        if runs[number] in {runs[other] for other in groups.get(key, ())}:
            key = (*key, str(number))
        groups.setdefault(key, []).append(number)
    alone = keys is None and all(len(members) == 1 for members in groups.values())
    told = [configs[members[0]] if alone else {**configs[members[0]], "seed": 0} for members in groups.values()]
    names = labels.short_labels(told, [folders[members[0]] for members in groups.values()])
    return list(zip(names, groups.values()))
