"""A run that other tools follow: `rounds.csv` and TensorBoard's curves hold what `rounds.parquet` holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import flsplit
from flsplit.cli import main
from flsplit.errors import UserError
from flsplit.experiment import preparation
from flsplit.record import loggers
from flsplit.record.loggers import Logger, Loggers, Told
from flsplit.record.loggers.csv import CsvLogger
from flsplit.record.tables import ROUNDS, Recorder
from flsplit.server import saving
from flsplit.server.checkpoint import Checkpoints, State
from flsplit.split.side import SideState

SMALL = ["dataset.train_limit=40", "dataset.test_limit=20", "clients=2", "engine=inline", "eval_every=2"]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_a_csv_file_has_the_rows_of_all_rounds_also_after_a_resume(tmp_path: Path) -> None:
    flsplit.run([*SMALL, "rounds=1", "logger=csv", f"out={tmp_path}/run"])
    run = flsplit.run([f"resume={tmp_path}/run", "rounds=3"])
    assert len(run.rounds) == 3
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run" / "rounds.csv"), run.rounds, check_exact=True)


@pytest.mark.slow
def test_tensorboard_has_a_curve_for_every_column(tmp_path: Path) -> None:
    flsplit.run([*SMALL, "rounds=3", "logger=tensorboard", f"out={tmp_path}/run"])
    run = flsplit.run([f"resume={tmp_path}/run", "rounds=5"])
    found = curves(tmp_path / "run")
    assert set(found) == set(run.rounds.columns) - {"round", "simulated_seconds", "joules"}  # of which there are none
    for name, points in found.items():
        expected = run.rounds[["round", name]].dropna()
        assert [step for step, _ in points] == expected["round"].tolist()
        assert [value for _, value in points] == pytest.approx(expected[name].tolist(), rel=1e-6)


def rows_of(run: flsplit.Run) -> pa.Table:
    return pa.Table.from_pandas(run.rounds, schema=ROUNDS, preserve_index=False)


def test_rounds_that_are_gone_through_again_are_in_a_curve_once(tmp_path: Path) -> None:
    rows = rows_of(flsplit.run([*SMALL, "rounds=3", f"out={tmp_path}/run"]))
    for seen in ((1, 2, 3), (2, 3)):  # killed after its third round, before the checkpoint of the second
        log = Loggers(["tensorboard"], Told(tmp_path))
        for count in seen:
            log.log(rows.slice(0, count), new=1)
        log.close()
    assert [step for step, _ in curves(tmp_path)["samples"]] == [1, 2, 3]


def test_a_run_that_goes_on_is_told_as_a_whole(tmp_path: Path) -> None:
    """Its loggers may have lost what they were told of, as a process that is killed loses what it has not written."""
    told = []

    class Seen(Loggers):
        def log(self, rounds: pa.Table, new: int) -> None:
            told.append(rounds["round"].to_pylist()[-new:])

    for done in (0, 2):
        recorder = Recorder(tmp_path, Seen([], Told(tmp_path)))
        if done:
            recorder.restore(done)
        for number in (done + 1, done + 2):
            recorder.add({"round": number}, [])
            recorder.save()
            recorder.tell()
    assert told == [[1], [2], [1, 2, 3], [4]]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_without_the_package_it_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf'pip install {name}(-skinny)?, or "flsplit\[{name}\]"'):
        flsplit.run([f"logger={name}"])


def test_a_sweeps_jobs_are_named_by_what_varies(tmp_path: Path) -> None:
    told = Told(tmp_path / "run", varied={"compressor.ratio": 0.1, "seed": 3}, sweep=tmp_path / "ratios")
    assert (told.name, told.group) == ("compressor.ratio=0.1 seed=3", "ratios compressor.ratio=0.1")
    assert (Told(tmp_path / "run").name, Told(tmp_path / "run").group) == ("run", None)
    seeds = Told(tmp_path / "run", varied={"seed": 3}, sweep=tmp_path / "seeds")
    assert (seeds.name, seeds.group) == ("seed=3", "seeds")


@pytest.mark.slow
def test_what_a_job_has_not_is_not_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[str]()
    monkeypatch.setattr(preparation, "Told", lambda *given: found.append(Told(*given).name) or Told(*given))
    keys = ["compressor=base,topk", "metrics=[accuracy],[accuracy,top5]", "rounds=1", f"out={tmp_path / 'sweep'}"]
    assert main(["-m", *SMALL, *keys]) == 0
    own = "compressor.rate=0.1 compressor.index_bits=per_sample"
    assert sorted(found) == sorted([
        "compressor=base metrics=[accuracy]", "compressor=base metrics=[accuracy,top5]",
        f"compressor=topk metrics=[accuracy] {own}", f"compressor=topk metrics=[accuracy,top5] {own}",
    ])  # fmt: skip


@pytest.mark.parametrize("kind", [ConnectionError, SystemExit])
def test_one_that_is_left_out_is_closed(
    kind: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a service does not wait for more of the run; whatever closing it comes to."""
    closed = []

    def fails(self: Logger, *_: Any) -> None:
        raise kind("it does not answer")

    def closes(self: Logger) -> None:
        closed.append(self)
        fails(self)

    monkeypatch.setattr(CsvLogger, "log", fails)
    monkeypatch.setattr(CsvLogger, "close", closes)
    all_of_them, lines = Loggers(["csv"], Told(tmp_path)), list[str]()
    all_of_them.tell = lines.append
    for _ in range(2):
        all_of_them.log(ROUNDS.empty_table(), new=0)
    assert (len(closed), len(lines), all_of_them.names) == (1, 1, [])


@pytest.mark.slow
def test_one_that_fails_is_left_out_and_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.chdir(tmp_path)
    rows = rows_of(flsplit.run([*SMALL, "rounds=2", f"out={tmp_path}/run"]))
    all_of_them, lines = Loggers(["mlflow", "csv"], Told(tmp_path)), list[str]()
    all_of_them.tell = lines.append
    (tmp_path / "mlflow-run").mkdir()  # where a file belongs
    for count in (1, 2):
        all_of_them.log(rows.slice(0, count), new=1)
    [line] = lines
    assert line.startswith("logger=mlflow is left out from here on: ")
    assert len(pd.read_csv(tmp_path / "rounds.csv")) == 2


def test_how_often_is_saved_does_not_depend_on_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes a while to be opened would leave a run unsaved for a hundred times as long."""
    now, told = 0.0, list[int]()

    class Slow(Loggers):
        def log(self, rounds: pa.Table, new: int) -> None:
            nonlocal now
            now += 5 * saving.SAVE_EVERY
            told.append(new)

    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: now))
    recorder, checkpoints = Recorder(tmp_path, Slow([], Told(tmp_path))), Checkpoints(tmp_path / "checkpoint")
    checkpoints.create()
    keeping, side = saving.Saving(recorder, checkpoints, {}, []), SideState(torch.zeros(1))
    for number in range(1, 4):
        recorder.add({"round": number}, [])
        keeping.finished(State(round=number, client_model=side, server_model=side))
        now += 2 * saving.SAVE_EVERY
    assert told == [1, 1, 1]
