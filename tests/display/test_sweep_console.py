"""What a sweep shows: jobs as they end, and means over seeds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy import stats

from flsplit.display.sweep import Jobs, Row, table_of_settings
from flsplit.report.seeds import by_setting, mean_of


def test_the_time_left_follows_from_jobs_that_ran_here() -> None:
    stream, now = io.StringIO(), [0.0]
    jobs = Jobs(12, stream=stream, clock=lambda: now[0])
    jobs.passed_over()
    now[0] = 60.0
    jobs.ended("adc · seed 1", accuracy=0.931, seconds=60.0)
    now[0] = 100.0
    jobs.ended("topk · seed 1", accuracy=None, seconds=40.0, failed=True)
    assert stream.getvalue().splitlines() == [
        "job  2/12  accuracy 93.1%  time 1:00  left 10:00  adc · seed 1",
        "job  3/12  failed  time 0:40  left 7:30  topk · seed 1",
    ]


def test_without_a_number_of_jobs_no_time_left_is_told() -> None:
    stream = io.StringIO()
    Jobs(None, stream=stream).ended("a", accuracy=0.5, seconds=1.0)
    assert stream.getvalue() == "job 1  accuracy 50.0%  time 0:01  a\n"


def test_a_mean_and_its_interval_are_those_of_scipy() -> None:
    values = [0.91, 0.94, 0.92]
    mean, half = mean_of(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert half is not None and (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))
    assert mean_of([0.5]) == (0.5, None)


def test_settings_are_told_apart_and_seeds_are_not() -> None:
    configs = [
        {"compressor": {"name": name, option: value}, "lr": 0.1, "seed": seed}
        for name, option, value in (("adc", "ratio", 0.1), ("topk", "rate", 0.1))
        for seed in (0, 1)
    ]
    assert by_setting(configs, list("0123")) == [("adc ratio=0.1", [0, 1]), ("topk rate=0.1", [2, 3])]


def test_a_mean_is_of_no_single_seed() -> None:
    configs = [{"compressor": {"name": name}, "seed": seed} for name, seed in (("topk", 1), ("topk", 2), ("base", 5))]
    assert by_setting(configs, list("012")) == [("topk", [0, 1]), ("base", [2])]


@pytest.mark.parametrize("keys", [None, []])
def test_a_copy_is_no_other_seed(keys: list[str] | None) -> None:
    configs = [
        {"compressor": {"name": "topk"}, "lr": lr, "seed": seed} for lr, seed in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    found = [members for _, members in by_setting(configs, list("0123"), keys)]
    assert found == ([[0, 2], [1], [3]] if keys is None else [[0, 2, 3], [1]])


def test_a_table() -> None:
    rows = [
        Row(name="adc", seeds=3, well=3, accuracy=(0.923, 0.0152), bits=1_234_567.0, seconds=49.6),
        Row(name="topk rate=0.1", seeds=1, well=0, accuracy=None, bits=None, seconds=None),
    ]
    stream = io.StringIO()
    table_of_settings(rows, title="4 jobs in all", after=["failed: all/3"], stream=stream)
    assert stream.getvalue().splitlines() == [
        "4 jobs in all",
        "  setting        seeds   test accuracy  sent, with models  time",
        "  adc            3       92.3% ± 1.5    1.2 Mb             0:50",
        "  topk rate=0.1  0 of 1  -              -                  -",
        "  accuracy after the last round with its 95% interval, bits and time: means over seeds",
        "  failed: all/3",
    ]
