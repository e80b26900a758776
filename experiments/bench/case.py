"""What a case is: two sides, timed alternately, and the ratio between them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the bench table.

    Attributes:
        case: its name.
        what: which ratio this is.
        ratio: median over pairs.
        low: smallest of the pairs' ratios.
        high: largest.
        goal: the bound to meet.
        at_least: whether `goal` is the least that `ratio` may be; else it is the most.
        conditions: what it was measured on.
    """

    case: str
    what: str
    ratio: float
    low: float
    high: float
    goal: float
    at_least: bool
    conditions: str

    @property
    def met(self) -> bool:
        """Whether the median meets the goal."""
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    def row(self) -> dict[str, Any]:
        """As in the JSON file."""
        row = asdict(self)
        sign = ">=" if row.pop("at_least") else "<="
        return {**row, "goal": f"{sign} {self.goal:g}", "met": self.met}


def compare(
    case: str, what: str, ours: Callable[[], float], theirs: Callable[[], float], *, pairs: int, goal: float,
    at_least: bool, note: str,
) -> Result:  # fmt: skip
    """Measure both sides in turn.

    Args:
        case: its name.
        what: which ratio this is.
        ours: measures the numerator.
        theirs: measures the denominator, in the same unit.
        pairs: how often; a first pair, which warms up, is not counted.
        goal: the bound to meet.
        at_least: see `Result`.
        note: further conditions.
    """
    ours(), theirs()
    ratios = [ours() / theirs() for _ in range(pairs)]
    return Result(
        case=case, what=what, ratio=statistics.median(ratios), low=min(ratios), high=max(ratios), goal=goal,
        at_least=at_least, conditions=f"{note}; {pairs} pairs; {machine()}",
    )  # fmt: skip


def machine() -> str:
    """The machine in a few words."""
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, torch {torch.__version__}"
    )
