"""A run that was cut off goes on as if it had not been."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.cut import cut_after
from helpers.program import Program

import flsplit
from flsplit.errors import UserError
from flsplit.server import saving
from flsplit.server.checkpoint import Checkpoints
from flsplit.server.messenger import Messenger
from flsplit.transport.task import Task

KEYS = [
    "engine=inline", "clients=4", "clients_per_round=3", "batch_size=8", "dataset.train_limit=120",
    "dataset.test_limit=40", "compressor=randtopk",
]  # fmt: skip


def assert_same(a: flsplit.Run, b: flsplit.Run) -> None:
    for name in ("rounds", "clients"):
        x, y = getattr(a, name), getattr(b, name)
        columns = [c for c in x.columns if c != "seconds"]
        pd.testing.assert_frame_equal(x[columns], y[columns], check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["splitfed_v1", "splitfed_v2"])
@pytest.mark.parametrize("state", ["persist", "reset"])
def test_more_rounds_continue_a_finished_run(strategy: str, state: str, tmp_path: Path) -> None:
    keys = [*KEYS, f"strategy={strategy}", f"optimizer_state={state}"]
    whole = flsplit.run([*keys, "rounds=4", f"out={tmp_path / 'whole'}"])
    flsplit.run([*keys, "rounds=2", f"out={tmp_path / 'part'}"])
    resumed = flsplit.run([f"resume={tmp_path / 'part'}", "rounds=4"])
    assert_same(whole, resumed)
    assert resumed.summary["samples"] == whole.summary["samples"]


@pytest.mark.slow
def test_a_run_that_goes_on_has_not_ended(tmp_path: Path) -> None:
    """Cut off once more, it is not taken for what it was before; where going on is refused, it is."""
    out, summary = tmp_path / "run", tmp_path / "run" / "summary.json"
    flsplit.run([*KEYS, "rounds=1", f"out={out}"])
    before = summary.read_bytes()
    address = ["engine=ray", "engine.address=127.0.0.1:9"]  # where there is no cluster
    for refused in (["rounds=3", "lr=1"], ["rounds=3", *address]):
        with pytest.raises(UserError, match=r"differs|engine\.address"):
            flsplit.run([f"resume={out}", *refused])
        assert summary.read_bytes() == before
    with cut_after(2), pytest.raises(KeyboardInterrupt):
        flsplit.run([f"resume={out}", "rounds=3"])
    with pytest.raises(UserError, match="has not ended"):
        flsplit.load(out)
    runs = flsplit.load([out])
    assert isinstance(runs, flsplit.Runs)
    assert runs.table.status.tolist() == ["unfinished"] and runs.table.uplink_bits[0] == runs.rounds.uplink_bits[1]
    summary.write_bytes(before)  # as versions before left it
    with pytest.raises(UserError, match="has not ended"):
        flsplit.load(out)


@pytest.mark.slow
def test_an_end_that_is_taken_back_takes_its_evaluation_along(tmp_path: Path) -> None:
    """The last round is evaluated whatever `eval_every` says; it is not the last any more."""
    keys = [*KEYS, "eval_every=3", "partition.holdout=0.2"]
    whole = flsplit.run([*keys, "rounds=4", f"out={tmp_path / 'whole'}"])
    flsplit.run([*keys, "rounds=1", f"out={tmp_path / 'part'}"])
    for rounds in (2, 4):
        resumed = flsplit.run([f"resume={tmp_path / 'part'}", f"rounds={rounds}"])
    assert_same(whole, resumed)
    assert resumed.rounds.test_accuracy.notna().tolist() == [False, False, True, True]
    assert resumed.summary["best_test_accuracy"] == whole.summary["best_test_accuracy"]


@pytest.mark.slow
def test_a_moved_run_goes_on_from_its_new_place(tmp_path: Path) -> None:
    whole = flsplit.run([*KEYS, "rounds=3", f"out={tmp_path / 'whole'}"])
    flsplit.run([*KEYS, "rounds=2", f"out={tmp_path / 'part'}"])
    shutil.move(tmp_path / "part", tmp_path / "moved")
    assert_same(whole, flsplit.run([f"resume={tmp_path / 'moved'}", "rounds=3"]))


def test_what_is_typed_beside_resume_must_agree(tmp_path: Path) -> None:
    flsplit.run([*KEYS, "rounds=1", f"out={tmp_path / 'run'}"])
    with pytest.raises(UserError, match="batch_size=16 differs from the run to resume, which has 8"):
        flsplit.run([f"resume={tmp_path / 'run'}", "batch_size=16"])
    flsplit.run([f"resume={tmp_path / 'run'}", "batch_size=8", "rounds=2"])


@pytest.mark.some
@pytest.mark.parametrize(
    "keys",
    [
        ["strategy=splitfed_v2"],
        ["strategy=splitfed_v3", "clients_per_round=2"],
        ["strategy=sequential"],
        ["strategy=parallel"],
        ["strategy=parallel", "strategy.sync=round"],
        ["strategy=fedavg"],
        ["strategy=centralized"],
        ["strategy.aggregator=fedavgm"],
        ["strategy.aggregator=fedadam"],
        ["strategy.aggregator=krum"],
        ["strategy.aggregator=fedmedian", "optimizer_state=reset"],
    ],
    ids=" ".join,
)
def test_whatever_a_run_carries_is_in_its_checkpoint(keys: list[str], tmp_path: Path) -> None:
    whole = flsplit.run([*KEYS, *keys, "rounds=4", f"out={tmp_path / 'whole'}"])
    flsplit.run([*KEYS, *keys, "rounds=2", f"out={tmp_path / 'cut'}"])
    resumed = flsplit.run([f"resume={tmp_path / 'cut'}", "rounds=4"])
    pd.testing.assert_frame_equal(whole.rounds.drop(columns="seconds"), resumed.rounds.drop(columns="seconds"))
    pd.testing.assert_frame_equal(whole.clients, resumed.clients)


@pytest.mark.slow
@pytest.mark.some
@pytest.mark.parametrize("strategy", ["splitfed_v1", "splitfed_v3", "parallel"])
def test_rounds_may_wait_to_be_saved(strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that saves two rounds of four is killed, or breaks off, in the middle of its fifth."""
    keys = [*KEYS, f"strategy={strategy}", "rounds=6"]
    whole = flsplit.run([*keys, f"out={tmp_path / 'whole'}"])

    def run(messenger: Messenger, tasks: Sequence[Task], original: Any = Messenger.run) -> Iterator[Any]:
        monkeypatch.setattr(saving, "SAVE_EVERY", 0.0 if tasks[0].round < 3 else float("inf"))
        outcomes = original(messenger, tasks)
        yield from islice(outcomes, len(tasks) - (tasks[0].round == 5))
        if tasks[0].round == 5:
            shutil.copytree(tmp_path / "broken_off", tmp_path / "killed")
            raise KeyboardInterrupt

    monkeypatch.setattr(Messenger, "run", run)
    with pytest.raises(KeyboardInterrupt):
        flsplit.run([*keys, f"out={tmp_path / 'broken_off'}"])
    monkeypatch.undo()
    for name, finished in (("killed", 2), ("broken_off", 4)):
        state = Checkpoints(tmp_path / name / "checkpoint").load()
        assert state is not None
        assert state.round == finished == len(pd.read_parquet(tmp_path / name / "rounds.parquet"))
        assert_same(whole, flsplit.run([f"resume={tmp_path / name}"]))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_kill_at_any_moment_changes_no_number(engine: str, tmp_path: Path) -> None:
    keys = [*KEYS[1:], f"engine={engine}", "rounds=12"]
    whole = flsplit.run([*KEYS, "rounds=12", f"out={tmp_path / 'whole'}"])
    out = tmp_path / "killed"
    program = Program([*keys, f"out={out}"], tmp_path, session=True)
    deadline = time.monotonic() + 600
    while not (out / "checkpoint" / "state.json").exists():
        assert program.code is None and time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.21)
    os.killpg(program.pid, signal.SIGKILL)
    program.wait()
    assert not (out / "summary.json").exists(), "it was over before it was killed"
    assert_same(whole, flsplit.run([f"resume={out}", "engine=inline"]))
