"""A run that other tools follow: `rounds.csv` and TensorBoard's curves hold what `rounds.parquet` holds."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from secrets import token_hex
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
from flsplit.server.shown import Shown
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


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main([*SMALL, "-m", "rounds=2", "seed=4,5", "lr=1e-3,1e-4", "logger=[csv,wandb]", f"out={tmp_path}"]) == 0
    groups = set()
    for job in range(4):
        folder = tmp_path / str(job)
        [file] = folder.glob("wandb/offline-run-*/*.wandb")
        told = dict(wandb_records(file))
        expected = pd.read_csv(folder / "rounds.csv")
        assert wandb_column(file, "round") == [1, 2]
        assert wandb_column(file, "train_loss") == expected.train_loss.tolist()
        assert told["run"].project == "flsplit" and "seed" in told["run"].display_name
        groups.add(told["run"].run_group)
        assert sorted(entry.path for entry in told["artifact"].manifest.contents) == ["config.yaml", "report.html"]
        assert told["exit"].exit_code == 0
        summary = json.loads((folder / "summary.json").read_text())
        assert wandb_summary(file)["seconds"] == summary["seconds"] > expected.seconds.iloc[-1]
    assert groups == {f"{tmp_path.name} lr=0.001", f"{tmp_path.name} lr=0.0001"}
    flsplit.run([f"resume={tmp_path}/0", "rounds=3"])
    [_, after] = sorted(tmp_path.glob("0/wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    assert wandb_column(after, "round") == [1, 2, 3]
    again = dict(wandb_records(after))["run"]
    assert (again.display_name, again.run_group) == ("lr=0.001 seed=4", f"{tmp_path.name} lr=0.001")


def wandb_column(file: Path, name: str) -> list[Any]:
    return [wandb_items(record.item)[name] for kind, record in wandb_records(file) if kind == "history"]


def wandb_summary(file: Path) -> dict[str, Any]:
    """A run's last numbers there: those of each row of its history, and what updates them."""
    found: dict[str, Any] = {}
    for kind, record in wandb_records(file):
        found |= wandb_items(record.item if kind == "history" else record.update if kind == "summary" else [])
    return found


def wandb_items(items: Iterable[Any]) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def wandb_records(file: Path) -> Iterator[tuple[str, Any]]:
    """What a `.wandb` file holds: LevelDB's log of protocol buffers, after seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        part, at = part + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record.FromString(part)
            yield record.WhichOneof("record_type"), getattr(record, record.WhichOneof("record_type"))
            part = b""


@pytest.fixture
def mlflow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a store of its own, to which `logger=mlflow` writes."""
    from mlflow import MlflowClient, set_tracking_uri

    uri = f"sqlite:///{tmp_path}/{token_hex(4)}.db"  # MLflow keeps a store of one name open, also when it is gone
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    set_tracking_uri(None)
    return MlflowClient(uri)


@pytest.mark.slow
def test_mlflow(tmp_path: Path, mlflow_client: Any) -> None:
    """A run that is cut off and goes on is one there, each of its rounds once."""
    client = mlflow_client
    flsplit.run([*SMALL, "rounds=2", "logger=mlflow", f"out={tmp_path}/run"])
    run = flsplit.run([f"resume={tmp_path}/run", "rounds=3"])
    experiment = client.get_experiment_by_name("flsplit")
    assert experiment is not None
    [found] = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["compressor.name"] == "adc" and found.data.tags["status"] == "completed"
    assert (found.data.params["rounds"], found.data.tags["rounds"]) == ("2", "3")  # it was asked for more
    assert not {"compressor.name", "seed", "out"} & set(found.data.tags)
    history = client.get_metric_history(found.info.run_id, "train_loss")
    assert [point.step for point in history] == [1, 2, 3]
    assert [point.value for point in history] == run.rounds.train_loss.tolist()
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {"config.yaml", "report.html"}


def ends(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """A round ends with an error as it begins; 0: the engine does not start."""

    def begin(self: Shown, now: int, *_: Any) -> None:
        if now == number:
            raise error

    def start(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Shown, "begin", begin)
    if number == 0:
        monkeypatch.setattr("flsplit.engine.inline.run", start)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 3, 4])
def test_what_mlflow_says_of_a_run_that_goes_on_and_fails(
    number: int, tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, out = mlflow_client, tmp_path / "run"
    flsplit.run([*SMALL, "rounds=2", "logger=[csv,mlflow]", f"out={out}"])
    number_of_it = (out / "mlflow-run").read_text()
    with monkeypatch.context() as patch:
        ends(patch, number, ValueError("on purpose"))
        with pytest.raises(ValueError, match="on purpose"):
            flsplit.run([f"resume={out}", "rounds=6"])
    summary, found = json.loads((out / "summary.json").read_text()), client.get_run(number_of_it)
    assert (found.info.status, found.data.tags["status"], summary["status"]) == ("FAILED", "failed", "failed")
    assert found.data.tags["xi"] == str(summary["xi"])
    report = Path(client.download_artifacts(number_of_it, "report.html", str(tmp_path))).read_text()
    assert "failed" in report and report == (out / "report.html").read_text()
    with monkeypatch.context() as patch:
        ends(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            flsplit.run([f"resume={out}"])
    found = client.get_run(number_of_it)
    assert found.info.status == "FAILED" and not {"status", "xi"} & set(found.data.tags)
    flsplit.run([f"resume={out}"])
    found = client.get_run(number_of_it)
    assert (found.info.status, found.data.tags["status"]) == ("FINISHED", "completed")


@pytest.mark.slow
def test_a_run_that_fails_at_once_is_told_of(
    tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, 1, ValueError("on purpose"))
    with pytest.raises(ValueError, match="on purpose"):
        flsplit.run([*SMALL, "rounds=2", "logger=mlflow", f"out={tmp_path}/run"])
    found = mlflow_client.get_run((tmp_path / "run" / "mlflow-run").read_text())
    assert (found.info.status, found.data.tags["status"]) == ("FAILED", "failed")


@pytest.mark.slow
def test_what_weights_and_biases_say_of_a_run_that_goes_on_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    out, known = tmp_path / "run", set[Path]()

    def told() -> Path:
        [file] = set(out.glob("wandb/offline-run-*/*.wandb")) - known
        known.add(file)
        return file

    flsplit.run([*SMALL, "rounds=2", "logger=wandb", f"out={out}"])
    assert wandb_summary(told())["status"] == "completed"
    for error, status in ((ValueError("on purpose"), "failed"), (KeyboardInterrupt(), None)):
        with monkeypatch.context() as patch:
            ends(patch, 3, error)
            with pytest.raises(type(error)):
                flsplit.run([f"resume={out}", "rounds=4"])
        file = told()
        assert dict(wandb_records(file))["exit"].exit_code == 1
        assert wandb_summary(file)["status"] == status
        assert wandb_column(file, "round") == [1, 2]


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


@pytest.mark.slow
def test_names_that_mlflow_does_not_take(tmp_path: Path, mlflow_client: Any) -> None:
    names = ["test_hit@5", "recall_x (1)", "recall_c,d", "recall_../a//b", "recall_" + 300 * "o", "recall_\u5b57.-"]
    rows = pa.table({"round": [1], "samples": [7], **{name: [0.5] for name in names}})
    logger = Loggers(["mlflow"], Told(tmp_path, {"strategy.aggregator_args.a@b": 1}))
    logger.log(rows, new=1)
    assert logger.names == ["mlflow"]
    logger.close()
    found = mlflow_client.get_run((tmp_path / "mlflow-run").read_text())
    assert found.info.status == "FAILED" and "strategy.aggregator_args.a_b" in found.data.params
    assert found.data.metrics == {"samples": 7.0, **dict.fromkeys([
        "test_hit_5", "recall_x _1_", "recall_c_d", "recall_.._a__b", "recall_" + 243 * "o", names[-1],
    ], 0.5)}  # fmt: skip
