"""Ray and client processes that are kept from one run to the next."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import flsplit
from flsplit.engine import idle
from flsplit.engine.processes import Member
from flsplit.transport.host_actor import NamedHost

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("kept")]
SMALL = ["clients=3", "rounds=2", "batch_size=8", "dataset.train_limit=60", "dataset.test_limit=20"]
CENTRAL = [*SMALL, "strategy=splitfed_v2"]


def left(*kinds: type) -> list[Any]:
    """What is idle, of all kinds or some."""
    there = [process for processes in idle._left.values() for process in processes]
    return [process for process in there if isinstance(process, kinds or (Member, NamedHost))]


def pids(*kinds: type) -> set[int]:
    """Process ids of what is idle, of all kinds or some."""
    import ray

    actors = [process.actor if isinstance(process, Member) else process._actor for process in left(*kinds)]
    return set(ray.get([actor.__ray_call__.remote(lambda _: os.getpid()) for actor in actors]))


def exists(pid: int) -> bool:
    """Whether there is such a process, not counting dead ones that nobody has asked after yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_the_end(of: set[int]) -> None:
    deadline = time.monotonic() + 600
    while any(exists(pid) for pid in of):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def tables(keys: list[str], out: Path, engine: str = "ray") -> list[pd.DataFrame]:
    run = flsplit.run([*keys, f"engine={engine}", f"out={out}"])
    return [frame.drop(columns="seconds", errors="ignore") for frame in (run.rounds, run.clients)]


def assert_equal(a: list[pd.DataFrame], b: list[pd.DataFrame]) -> None:
    for mine, other in zip(a, b, strict=True):
        pd.testing.assert_frame_equal(mine, other, check_exact=True)


def test_a_run_goes_on_with_the_processes_of_the_one_before_to_the_numbers_of_its_own(tmp_path: Path) -> None:
    first = tables(CENTRAL, tmp_path / "first")
    there = pids()
    assert len(there) == 3  # two for clients, and the host
    other = tables([*SMALL, "compressor=topk", "seed=1"], tmp_path / "other")
    assert pids() == there
    again = tables(CENTRAL, tmp_path / "again")
    assert pids() == there
    assert_equal(first, again)
    assert_equal(first, tables(CENTRAL, tmp_path / "inline", "inline"))
    assert_equal(other, tables([*SMALL, "compressor=topk", "seed=1"], tmp_path / "inline_other", "inline"))


def test_one_that_has_died_since_is_replaced_and_costs_nothing(tmp_path: Path) -> None:
    import ray

    first = tables(CENTRAL, tmp_path / "first")
    there, calls = pids(), [member.news for member in left(Member)]
    assert len(there) == 3
    for pid in there:
        os.kill(pid, signal.SIGKILL)
    assert len(ray.wait(calls, num_returns=2, timeout=600)[0]) == 2  # Ray has noticed
    again = tables(CENTRAL, tmp_path / "again")
    assert_equal(first, again)
    anew = pids()
    assert len(anew) == 3 and not anew & there


def test_processes_of_another_size_are_started_anew(tmp_path: Path) -> None:
    tables(SMALL, tmp_path / "first")
    there = pids(Member)
    tables([*SMALL, "engine.cpus_per_client=2"], tmp_path / "other")
    assert len(there) == 2 and len(pids(Member)) == 1 and not pids(Member) & there
    wait_for_the_end(there)


def test_what_is_left_ends_with_the_ray_it_is_in(tmp_path: Path) -> None:
    import ray

    tables(SMALL, tmp_path / "first")
    ray.shutdown()
    tables(SMALL, tmp_path / "again")
    there = pids(Member)
    idle.end()
    wait_for_the_end(there)
