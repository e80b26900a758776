"""What a case is: a number measured several times, mostly the ratio of two sides that are timed alternately."""

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
        what: which ratio this is; for a number with a unit, that number and its unit.
        ratio: median over pairs.
        low: smallest of the pairs' ratios.
        high: largest.
        goal: the bound to meet; None if the number is only reported.
        at_least: whether `goal` is the least that `ratio` may be; else it is the most.
        conditions: what it was measured on.
    """

    case: str
    what: str
    ratio: float
    low: float
    high: float
    goal: float | None
    at_least: bool
    conditions: str

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; None without one."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    def row(self) -> dict[str, Any]:
        """As in the JSON file."""
        row = asdict(self)
        sign = ">=" if row.pop("at_least") else "<="
        goal = None if self.goal is None else f"{sign} {self.goal:g}"
        return {**row, "goal": goal, "met": self.met}

    def line(self) -> str:
        """As printed."""
        verdict = {True: "met", False: "NOT met", None: "no goal"}[self.met]
        goal = "" if self.goal is None else f"goal {self.row()['goal']}: "
        return (
            f"{self.case:10} {self.ratio:.4g} ({self.low:.4g} to {self.high:.4g}), {goal}{verdict}; {self.what}; "
            f"{self.conditions}"
        )


def measure(
    case: str, what: str, once: Callable[[], float], *, pairs: int, goal: float | None, at_least: bool, note: str,
) -> Result:  # fmt: skip
    """Measure one number several times.

    Args:
        case: its name.
        what: which number this is.
        once: measures it.
        pairs: how often; a first time, which warms up, is not counted.
        goal: the bound to meet, or None.
        at_least: see `Result`.
        note: further conditions.
    """
    once()
    numbers = [once() for _ in range(pairs)]
    return Result(
        case=case, what=what, ratio=statistics.median(numbers), low=min(numbers), high=max(numbers), goal=goal,
        at_least=at_least, conditions=f"{note}; {pairs} pairs; {machine()}",
    )  # fmt: skip


def compare(
    case: str, what: str, ours: Callable[[], float], theirs: Callable[[], float], *, pairs: int, goal: float | None,
    at_least: bool, note: str,
) -> Result:  # fmt: skip
    """Measure the ratio of two sides, in turn: `ours` is the numerator, `theirs`, in the same unit, the denominator."""
    return measure(
        case, what, lambda: ours() / theirs(), pairs=pairs, goal=goal, at_least=at_least, note=note
    )  # fmt: skip


def machine() -> str:
    """The machine in a few words."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return (
        f"{gpu}{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
