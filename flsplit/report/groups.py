"""Runs that differ in their seed alone: one line of a chart, one row of means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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

    def name(self, drawn: Collection[int]) -> str:
        """The label, and of how many seeds its lines are made if there is more than one; `drawn`: of each line."""
        if len(self.runs) == 1:
            return self.label
        some = " or ".join(map(str, sorted(set(drawn)) or [0]))
        return f"{self.label} · {'' if set(drawn) == {len(self.runs)} else f'{some} of '}{len(self.runs)} seeds"


def groups(runs: Sequence[Run], names: Sequence[str]) -> list[Group]:
    """Runs in groups, in their order; `names` are those of their folders."""
    found = by_setting([run.config for run in runs], names)
    return [
        Group(label, Style.of(number), [runs[member] for member in members])
        for number, (label, members) in enumerate(found)
    ]
