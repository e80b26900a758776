"""Means over seeds are of seeds that have the same runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from experiments.paper import figures, tables
from experiments.paper.protocol import Choice
from experiments.paper.protocol import points as of_the_paper
from experiments.point import Point
from experiments.results import COLUMNS, Results
from experiments.seeds import like_for_like
from experiments.study import many_clients, noisy_link, quantised_adc

SEEDS = (43422, 51)


def results_of(points: Sequence[Point], folder: Path) -> Results:
    """A table with a row for each point: 0.4 with the first seed, 0.5 with others."""
    rows = [
        dict.fromkeys(COLUMNS, 0)
        | p.key
        | {"rule": p.rule or "", "uplink_bits": 10**9, "final_test_accuracy": 0.4 + 0.1 * (p.seed != SEEDS[0])}
        for p in points
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "results.csv", index=False)
    return Results(folder)


def test_seeds_with_other_runs_than_the_rest_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [p for p in quantised_adc.points(SEEDS) if p.method == "base"]
    first, second = wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :]
    assert like_for_like(wanted, results_of([*first, *second[:2]], tmp_path)) == first
    assert capsys.readouterr().err == "means are over seed 43422 (runs: 5), without 51 (runs: 2)\n"
    assert like_for_like(wanted, results_of([*first[:2], *second[:2]], tmp_path)) == [*first[:2], *second[:2]]
    assert like_for_like(wanted, results_of([], tmp_path)) == [] and capsys.readouterr().err == ""


def test_data_sets_and_models_have_seeds_of_their_own(tmp_path: Path) -> None:
    wanted = of_the_paper("fig4", Choice(scale="full", methods=("base", "topk"), ratios=(0.1,), seeds=SEEDS))
    there = [p for p in wanted if p.seed == SEEDS[0] or (p.dataset, p.model) == ("cifar100", "deit_tiny")]
    assert set(like_for_like(wanted, results_of(there, tmp_path))) == set(there)


@pytest.mark.parametrize("study", [quantised_adc, noisy_link, many_clients])
def test_no_row_of_a_study_is_a_mean_over_other_seeds_than_the_next(study: object, tmp_path: Path) -> None:
    wanted = study.points(SEEDS)  # type: ignore[attr-defined]
    half = [p for p in wanted if p.seed == SEEDS[0]] + [p for p in wanted if p.seed == SEEDS[1]][:3]
    rows = study.gather(wanted, results_of(half, tmp_path))  # type: ignore[attr-defined]
    assert (rows.accuracy == 40).all() and (rows.seeds == 1).all()
    rows = study.gather(wanted, results_of(wanted, tmp_path))  # type: ignore[attr-defined]
    assert rows.accuracy.tolist() == pytest.approx([45] * len(rows)) and (rows.seeds == 2).all()


def test_no_point_of_a_figure_or_table_of_the_paper_is(tmp_path: Path) -> None:
    wanted = of_the_paper("table2", Choice(scale="reduced", seeds=SEEDS))
    there = [p for p in wanted if p.seed == SEEDS[0] or not p.options]
    results = results_of(there, tmp_path)
    assert (figures.gather(wanted, results).final_test_accuracy == 0.4).all()
    assert "0.4500" not in tables.table2(results, wanted) and "0.4000" in tables.table2(results, wanted)


def test_the_table_is_read_when_it_has_changed_and_not_for_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, reads = of_the_paper("fig4", Choice(scale="full")), list[object]()
    results = results_of(wanted[:4], tmp_path)
    read = pd.read_csv
    monkeypatch.setattr(pd, "read_csv", lambda *given, **more: reads.append(given) or read(*given, **more))
    assert [results.row(point) is not None for point in wanted[:6]] == 4 * [True] + 2 * [False] and len(reads) == 1
    results_of(wanted[:5], tmp_path)
    row = results.row(wanted[4])
    assert row is not None and row.seed == wanted[4].seed and row.method == wanted[4].method and len(reads) == 2
    (tmp_path / "results.csv").unlink()
    assert results.row(wanted[0]) is None and results.table().empty and len(reads) == 2
