"""Runs the points that are missing, and goes on with those that were cut off."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.folder import check_all_ended, check_same, is_begun, note_commit, passed_over, trained_by
from experiments.point import Point
from experiments.results import Results
from flsplit.compose import compose
from flsplit.engine import kept
from flsplit.errors import RunFailed
from flsplit.experiment import execute
from flsplit.record.run import read_run

_FOR_A_GPU = {"full": "medium and reduced fit", "study": "study-cpu fits"}  # scales, and what there is beside


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where runs find what they need and leave what they make.

    Attributes:
        runs: folder for the run folders.
        data: local copy of the dataset; None for the Hub.
        weights: file with pretrained weights; None for the Hub.
        overrides: where and how it is computed, which is not part of the protocol (`device=cuda`).
    """

    runs: Path
    data: str | None = None
    weights: str | None = None
    overrides: tuple[str, ...] = ()

    def keys(self, point: Point) -> list[str]:
        """A point's run here, as on flsplit's command line, without `out`."""
        return [*point.overrides(data=self.data, weights=self.weights), *self.overrides]


def run_missing(experiment: str, points: Sequence[Point], results: Results, place: Place) -> int:
    """Run every point that has no row yet, and append the rows.

    One whose training cannot go on because its numbers are not finite has no row; the others are run all the same.

    Returns:
        how many were run.

    Raises:
        UserError: if a folder holds a run with other settings; see `check_same`.
        RunFailed: if a run failed otherwise, or, at the end, naming those that diverged.
    """
    diverged = []
    missing = [point for point in points if results.row(point) is None]
    with kept():
        for number, point in enumerate(missing, 1):
            print(f"{experiment}: run {number} of {len(missing)}: {point.slug}", flush=True)
            folder = place.runs / point.slug
            if is_begun(folder):
                check_same(folder, place.keys(point))
            if not _finished(folder):
                try:
                    _run(point, folder, place)
                except RunFailed as error:
                    diverged.append(passed_over(point.slug, error))
                    continue
            results.add(experiment, point, read_run(folder), trained_by(folder))
    check_all_ended(diverged, len(missing))
    return len(missing)


def _finished(folder: Path) -> bool:
    summary = folder / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["status"] != "failed"


def _run(point: Point, folder: Path, place: Place) -> None:
    config = compose([f'resume="{folder}"'] if is_begun(folder) else [*place.keys(point), f'out="{folder}"'])
    if point.scale in _FOR_A_GPU and not torch.cuda.is_available():
        light = _FOR_A_GPU[point.scale]
        print(f"--scale {point.scale} is meant for a GPU, and PyTorch sees none; {light} two cores", file=sys.stderr)
    note_commit(folder)
    execute(config)
