"""Means over seeds compare like with like: of seeds that have the same runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from experiments.point import Point
from experiments.results import Results


def like_for_like(points: Sequence[Point], results: Results) -> list[Point]:
    """Those points that have a row, of the seeds that have most of them, all the same; a line names other seeds.

    A mean over two seeds beside that of one would differ by what seeds do: several points of accuracy. Data sets and
    models are not compared with one another, so each has its own seeds.
    """
    panels: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        if results.row(point) is not None:
            panels.setdefault((point.scale, point.dataset, point.model), []).append(point)
    return [point for panel in panels.values() for point in _of_same_seeds(panel)]


def _of_same_seeds(points: Sequence[Point]) -> list[Point]:
    runs = {
        seed: frozenset(replace(point, seed=0) for point in points if point.seed == seed)
        for seed in dict.fromkeys(point.seed for point in points)
    }
    most = max(runs.values(), key=len)
    other = [f"{seed} (runs: {len(own)})" for seed, own in runs.items() if own != most]
    if other:
        same = ", ".join(str(seed) for seed, own in runs.items() if own == most)
        print(f"means are over seed {same} (runs: {len(most)}), without {', '.join(other)}", file=sys.stderr)
    return [point for point in points if runs[point.seed] == most]
