"""Means over seeds on the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from make_runs import config, make_run, rounds_table
from scipy import stats

from flsplit.report.means import section
from flsplit.report.runs import load_run


def test_runs_of_several_seeds_are_a_row_with_their_interval(tmp_path: Path) -> None:
    for ratio in (0.1, 0.5):
        for seed in (0, 1, 2):
            compressor = {"name": "adc", "ratio": ratio, "rule": "sqrt"}
            make_run(
                tmp_path / f"{ratio}-{seed}", config(compressor=compressor, seed=seed),
                rounds=rounds_table(12, ratio=ratio, seed=seed),
            )  # fmt: skip
    runs = [load_run(folder) for folder in sorted(tmp_path.iterdir())]
    html = section(runs)
    assert html.count("<tr>") == 3
    told = re.search(r'<th scope="row">adc ratio=0.1</th><td>3</td><td>([\d.]+) ± ([\d.]+)</td>', html)
    assert told is not None
    values = [100 * run.figure("final_test_accuracy") for run in runs[:3]]
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert float(told[1]) == pytest.approx((low + high) / 2, abs=0.005)
    assert float(told[2]) == pytest.approx((high - low) / 2, abs=0.005)


def test_one_seed_each_has_no_such_table(tmp_path: Path) -> None:
    make_run(tmp_path / "a", config())
    make_run(tmp_path / "b", config(lr=0.1))
    assert section([load_run(tmp_path / name) for name in "ab"]) == ""
