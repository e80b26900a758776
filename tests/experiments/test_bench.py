"""The bench: what its rows say."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest

from experiments.bench import __main__ as bench
from experiments.bench.case import compare


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


@pytest.mark.slow
def test_a_case_runs_and_leaves_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.bench.single.BATCH", 4)
    assert bench.main(["single", "--pairs", "1", "--json", str(tmp_path / "bench.json")]) == 0
    [row] = json.loads((tmp_path / "bench.json").read_text())
    assert row.keys() == {"case", "what", "ratio", "low", "high", "goal", "met", "conditions"}
    assert row["ratio"] > 0 and "single" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nothing"], ["--pairs", "0"], ["--json", "/does/not/exist/x.json"]])
def test_mistakes_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        bench.main(arguments)
    assert left.value.code == 2 and "error" in capsys.readouterr().err
