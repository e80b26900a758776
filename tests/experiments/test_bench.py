"""The bench: what its rows say, and that the two sides of each comparison do the same work."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest
import torch

import flsplit
from experiments.bench import __main__ as bench
from experiments.bench import adc, single
from experiments.bench.case import compare, measure
from experiments.bench.workload import Workload

TINY = Workload(model="vit_micro", size=16, pixels=16, batch=8, steps=2)


@pytest.mark.parametrize(("goal", "at_least", "met"), [(1.9, True, True), (2.1, True, False), (2.1, False, True)])
def test_a_ratio_is_the_median_of_pairs_after_one_that_warms_up(goal: float, at_least: bool, met: bool) -> None:
    numbers = count()
    ours = iter([100.0, 2.0, 1.0, 9.0])
    result = compare(
        "case", "what", lambda: next(ours), lambda: 1.0 if next(numbers) else 7.0, pairs=3, goal=goal,
        at_least=at_least, note="",
    )  # fmt: skip
    assert (result.low, result.ratio, result.high) == (1.0, 2.0, 9.0)
    assert result.met is met and result.row()["goal"] == f"{'>=' if at_least else '<='} {goal}"
    assert ("NOT met" in result.line()) is not met


def test_a_number_without_a_goal_is_only_reported() -> None:
    result = measure("case", "what", lambda: 1.0, pairs=1, goal=None, at_least=True, note="")
    assert result.row()["goal"] is None and result.row()["met"] is None
    assert "met" not in result.line() and "no goal" in result.line()


def test_the_plain_loop_trains_as_the_platform_does() -> None:
    with TINY.made() as made:
        step = single.plain_step(made)
        losses = [float(step(*batch)) for batch in made.batches()]
        run = flsplit.run(made.keys())
    assert run.summary["samples"] == made.batch * made.steps
    assert sum(losses) / len(losses) == pytest.approx(run.rounds.train_loss.item(), rel=1e-5)


def test_the_loop_with_known_clusters_starts_as_adc_does() -> None:
    with TINY.made() as made:
        fixed = adc.clusters_known(made)
        first = float(adc.merging_step(made, fixed)(*next(made.batches())))
        run = flsplit.run(made.keys(compressor="adc", compressor__ratio=adc.RATIO, local_steps=1))
    assert first == pytest.approx(run.rounds.train_loss.item(), rel=1e-5)
    assert len(fixed) == made.steps and all(torch.allclose(f.weights.sum(1), torch.ones(2)) for f in fixed)


@pytest.mark.slow
def test_a_case_runs_and_leaves_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.CASES, "single", lambda *, pairs: single.run(pairs=pairs, workload=TINY))
    assert bench.main(["single", "--pairs", "1", "--json", str(tmp_path / "bench.json")]) == 0
    [row] = json.loads((tmp_path / "bench.json").read_text())
    assert row.keys() == {"case", "what", "ratio", "low", "high", "goal", "met", "conditions"}
    assert row["ratio"] > 0 and "single" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nothing"], ["--pairs", "0"], ["--json", "/does/not/exist/x.json"]])
def test_mistakes_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        bench.main(arguments)
    assert left.value.code == 2 and "error" in capsys.readouterr().err
