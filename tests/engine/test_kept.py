"""Ray and client processes that are kept from one run to the next."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from helpers.processes import CLIENTS, ours

import flsplit
from flsplit.engine import idle

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
SMALL = ["clients=3", "rounds=2", "batch_size=8", "dataset.train_limit=60", "dataset.test_limit=20"]
CENTRAL = [*SMALL, "strategy=splitfed_v2"]


@pytest.fixture(scope="module", autouse=True)
def _kept(kept: None) -> Iterator[None]:
    yield
    del kept


def tables(keys: list[str], out: Path, engine: str = "ray") -> list[pd.DataFrame]:
    run = flsplit.run([*keys, f"engine={engine}", f"out={out}"])
    return [frame.drop(columns="seconds", errors="ignore") for frame in (run.rounds, run.clients)]


def assert_equal(a: list[pd.DataFrame], b: list[pd.DataFrame]) -> None:
    for mine, other in zip(a, b, strict=True):
        pd.testing.assert_frame_equal(mine, other, check_exact=True)


def test_a_run_goes_on_with_the_processes_of_the_one_before_to_the_numbers_of_its_own(tmp_path: Path) -> None:
    first = tables(CENTRAL, tmp_path / "first")
    there = ours()
    other = tables([*SMALL, "compressor=topk", "seed=1"], tmp_path / "other")
    assert ours() == there and len(there) == 3  # two for clients, and the host
    again = tables(CENTRAL, tmp_path / "again")
    assert ours() == there
    assert_equal(first, again)
    assert_equal(first, tables(CENTRAL, tmp_path / "inline", "inline"))
    assert_equal(other, tables([*SMALL, "compressor=topk", "seed=1"], tmp_path / "inline_other", "inline"))


def test_one_that_has_died_since_is_replaced_and_costs_nothing(tmp_path: Path) -> None:
    first = tables(CENTRAL, tmp_path / "first")
    there = ours()
    for pid in there:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 600
    while ours() & there:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    again = tables(CENTRAL, tmp_path / "again")
    assert_equal(first, again)
    assert len(ours()) == 3 and not ours() & there


def test_processes_of_another_size_are_started_anew(tmp_path: Path) -> None:
    tables(SMALL, tmp_path / "first")
    there = ours(CLIENTS)
    tables([*SMALL, "engine.cpus_per_client=2"], tmp_path / "other")
    assert len(there) == 2 and len(ours(CLIENTS)) == 1 and not ours(CLIENTS) & there


def test_what_is_left_ends_with_the_ray_it_is_in(tmp_path: Path) -> None:
    import ray

    tables(SMALL, tmp_path / "first")
    ray.shutdown()
    tables(SMALL, tmp_path / "again")
    idle.end()
    deadline = time.monotonic() + 600
    while ours():
        assert time.monotonic() < deadline
        time.sleep(0.05)
