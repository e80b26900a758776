"""A run that other tools follow: `rounds.csv` and TensorBoard's curves hold what `rounds.parquet` holds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import flsplit
from flsplit.errors import UserError
from flsplit.record import loggers as logger
from flsplit.record.tables import ROUNDS

SMALL = ["dataset.train_limit=40", "dataset.test_limit=20", "clients=2", "engine=inline", "eval_every=2"]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_a_csv_file_has_the_rows_of_all_rounds_also_after_a_resume(tmp_path: Path) -> None:
    flsplit.run([*SMALL, "rounds=1", "logger=csv", f"out={tmp_path}/run"])
    run = flsplit.run([f"resume={tmp_path}/run", "rounds=3"])
    assert len(run.rounds) == 3
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run" / "rounds.csv"), run.rounds, check_exact=True)


def test_tensorboard_has_a_curve_for_every_column(tmp_path: Path) -> None:
    flsplit.run([*SMALL, "rounds=4", "logger=tensorboard", f"out={tmp_path}/run"])
    run = flsplit.run([f"resume={tmp_path}/run", "rounds=5"])
    found = curves(tmp_path / "run")
    assert set(found) == set(run.rounds.columns) - {"round", "simulated_seconds", "joules"}  # of which there are none
    for name, points in found.items():
        expected = run.rounds[["round", name]].dropna()
        assert [step for step, _ in points] == expected["round"].tolist()
        assert [value for _, value in points] == pytest.approx(expected[name].tolist(), rel=1e-6)


def test_rounds_that_are_gone_through_again_are_in_a_curve_once(tmp_path: Path) -> None:
    rounds = flsplit.run([*SMALL, "rounds=3", f"out={tmp_path}/run"])
    rows = pa.Table.from_pandas(rounds.rounds, schema=ROUNDS, preserve_index=False)
    for seen in ((1, 2, 3), (2, 3)):  # killed after its third round, before the checkpoint of the second
        log = logger.TensorBoardLogger(tmp_path)
        for count in seen:
            log.log(rows.slice(0, count), new=1)
        log.close()
    assert [step for step, _ in curves(tmp_path)["samples"]] == [1, 2, 3]


def test_without_the_package_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        flsplit.run(["logger=tensorboard"])
