"""Runs that differ in their seed alone: one line of a chart, one row of means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flsplit.report.runs import Run
from flsplit.report.seeds import by_setting
from flsplit.report.style import Style


@dataclass(frozen=True)
class Group:
    """Runs of the same settings.

    Attributes:
        label: what tells them from the others.
        style: of their line.
        runs: one, or one of each seed.
    """

    label: str
    style: Style
    runs: list[Run]

    @property
    def name(self) -> str:
        """The label, and how many seeds there are if it is not one."""
        return f"{self.label} · {len(self.runs)} seeds" if len(self.runs) > 1 else self.label


def groups(runs: Sequence[Run], names: Sequence[str]) -> list[Group]:
    """Runs in groups, in their order; `names` are those of their folders."""
    found = by_setting([run.config for run in runs], names)
    return [
        Group(label, Style.of(number), [runs[member] for member in members])
        for number, (label, members) in enumerate(found)
    ]
