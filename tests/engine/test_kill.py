"""Client processes that are killed at any moment of a run cost their clients a round, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from helpers.processes import CLIENTS, ours
from helpers.program import Program

from flsplit.record.run import read_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
KEYS = ["clients=6", "compressor=base", "dataset.train_limit=300", "dataset.test_limit=20", "batch_size=8"]
ROUNDS, KILLS = 12, 2


def kill_one(leader: int) -> bool:
    """Kill the client process that has been there longest, if there is one."""
    there = sorted(ours(CLIENTS, leader=leader))
    if there:
        os.kill(there[0], signal.SIGKILL)
    return bool(there)


@pytest.mark.parametrize(("strategy", "seed"), [("splitfed_v1", 0), ("splitfed_v2", 0)])
def test_killed_again_and_again_a_run_goes_on(strategy: str, seed: int, tmp_path: Path) -> None:
    out, moments = tmp_path / "run", random.Random(seed)
    program = Program([*KEYS, f"rounds={ROUNDS}", f"strategy={strategy}", f"out={out}"], tmp_path)
    killed, deadline = 0, time.monotonic() + 400
    try:
        while program.code is None and killed < KILLS:  # the first while it starts, or in the warm-up
            assert time.monotonic() < deadline
            time.sleep(moments.uniform(0.05, 0.3) if not killed else moments.uniform(3, 5))
            killed += kill_one(program.pid)
        assert program.wait(400) == 0, program.said
    finally:
        program.kill()
    run = read_run(out)
    failed = run.clients.groupby("round").failed.sum()
    assert killed and len(failed) == ROUNDS
    assert (failed > 0).sum() <= killed
    if strategy == "splitfed_v1":
        assert failed.sum() <= killed  # each time the one that was at hand, if any was
    assert run.summary["status"] == "completed" and run.summary["final_test_accuracy"] is not None
