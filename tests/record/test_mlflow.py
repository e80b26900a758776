"""A run that is followed in MLflow."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from secrets import token_hex
from typing import Any

import pyarrow as pa
import pytest
from helpers.ended import end_in

import flsplit
from flsplit.record.loggers import Loggers, Told

SMALL = ["dataset.train_limit=40", "dataset.test_limit=20", "clients=2", "engine=inline", "eval_every=2"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow with its tables, which take seconds to make."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def mlflow_client(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a store of its own, to which `logger=mlflow` writes."""
    from mlflow import MlflowClient, set_tracking_uri

    file = tmp_path / f"{token_hex(4)}.db"  # MLflow keeps a store of one name open, also when it is gone
    shutil.copy(empty_store, file)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    monkeypatch.chdir(tmp_path)
    set_tracking_uri(None)
    return MlflowClient(f"sqlite:///{file}")


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


@pytest.mark.parametrize("number", [0, 3, 4])
def test_what_mlflow_says_of_a_run_that_goes_on_and_fails(
    number: int, tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, out = mlflow_client, tmp_path / "run"
    flsplit.run([*SMALL, "rounds=2", "logger=[csv,mlflow]", f"out={out}"])
    number_of_it = (out / "mlflow-run").read_text()
    with monkeypatch.context() as patch:
        end_in(patch, number, ValueError("on purpose"))
        with pytest.raises(ValueError, match="on purpose"):
            flsplit.run([f"resume={out}", "rounds=6"])
    summary, found = json.loads((out / "summary.json").read_text()), client.get_run(number_of_it)
    assert (found.info.status, found.data.tags["status"], summary["status"]) == ("FAILED", "failed", "failed")
    assert found.data.tags["xi"] == str(summary["xi"])
    report = Path(client.download_artifacts(number_of_it, "report.html", str(tmp_path))).read_text()
    assert "failed" in report and report == (out / "report.html").read_text()
    with monkeypatch.context() as patch:
        end_in(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            flsplit.run([f"resume={out}"])
    found = client.get_run(number_of_it)
    assert found.info.status == "FAILED" and not {"status", "xi"} & set(found.data.tags)
    flsplit.run([f"resume={out}"])
    found = client.get_run(number_of_it)
    assert (found.info.status, found.data.tags["status"]) == ("FINISHED", "completed")


def test_a_run_that_fails_at_once_is_told_of(
    tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_in(monkeypatch, 1, ValueError("on purpose"))
    with pytest.raises(ValueError, match="on purpose"):
        flsplit.run([*SMALL, "rounds=2", "logger=mlflow", f"out={tmp_path}/run"])
    found = mlflow_client.get_run((tmp_path / "run" / "mlflow-run").read_text())
    assert (found.info.status, found.data.tags["status"]) == ("FAILED", "failed")


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


def rows(rounds: int) -> pa.Table:
    return pa.table({"round": range(1, rounds + 1), "samples": [8 * number for number in range(1, rounds + 1)]})


def test_a_round_does_not_wait_for_the_disk_and_the_end_does(
    tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = Loggers(["mlflow"], Told(tmp_path))
    logger.log(rows(1), new=1)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    write = SqlAlchemyStore.log_batch

    def slow(*values: Any) -> None:
        time.sleep(1)
        write(*values)

    logger.finish({"status": "completed"}, [])
    monkeypatch.setattr(SqlAlchemyStore, "log_batch", slow)
    begun = time.monotonic()
    logger.log(rows(2), new=1)
    assert time.monotonic() - begun < 0.9
    logger.finish({"status": "completed"}, [])
    history = mlflow_client.get_metric_history((tmp_path / "mlflow-run").read_text(), "samples")
    assert [(point.step, point.value) for point in history] == [(1, 8), (2, 16)]


def test_what_fails_aside_is_told_of(tmp_path: Path, mlflow_client: Any) -> None:
    logger, lines = Loggers(["mlflow"], Told(tmp_path)), list[str]()
    logger.tell = lines.append
    logger.log(rows(1), new=1)
    logger.log(rows(2), new=1)
    mlflow_client.delete_run((tmp_path / "mlflow-run").read_text())
    for number in (3, 4, 5):
        logger.log(rows(number), new=1)
    [line] = lines
    assert line.startswith("logger=mlflow is left out from here on: ") and "deleted" in line
