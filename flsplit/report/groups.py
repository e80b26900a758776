"""Runs that differ in their seed alone: one line of a chart, one row of means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flsplit.report import labels
from flsplit.report.runs import Run
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
    varied = labels.varied([run.config for run in runs])
    seeds = [str(seed) for seed in varied.pop("seed", [""] * len(runs))]
    members: dict[tuple[str, ...], list[int]] = {}
    for number in range(len(runs)):
        key = tuple(str(values[number]) for values in varied.values())
        twice = seeds[number] in {seeds[other] for other in members.get(key, ())}
        members.setdefault((*key, str(number)) if twice else key, []).append(number)
    found = list(members.values())
    told = labels.short_labels(
        [{**runs[first].config, "seed": 0} if len(rest) else runs[first].config for first, *rest in found],
        [names[first] for first, *_ in found],
    )
    return [
        Group(label, Style.of(number), [runs[member] for member in group])
        for number, (label, group) in enumerate(zip(told, found))
    ]
