import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from experiments.dropout import __main__ as dropout
from experiments.results import commit
from flsplit.compose import compose
from flsplit.errors import RunFailed, UserError
from flsplit.record.run import Run


@pytest.mark.slow
def test_the_same_clients_are_away_with_and_without_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropout, "DROPOUT", (0.0, 0.5))
    arguments = ["--seeds", "3", "--runs", str(tmp_path / "runs"), "--home", str(tmp_path)]
    for key in ("rounds=3", "clients=4", "dataset.train_limit=80", "dataset.test_limit=40"):
        arguments += ["--set", key]
    assert dropout.main(arguments) == 0
    own = "-rounds=3-clients=4-dataset.train_limit=80-dataset.test_limit=40"
    table = pd.read_csv(tmp_path / f"results{own}.csv")
    assert table.method.tolist() == ["base", "adc"] * 2 and (tmp_path / f"accuracy{own}.png").stat().st_size > 5000
    away = table.set_index(["method", "dropout"]).away
    assert (away.loc[:, 0.0] == 0).all() and away["base", 0.5] == away["adc", 0.5] > 0
    bits = table.set_index(["method", "dropout"]).uplink_bits
    assert (bits["base"] > bits["adc"]).all() and bits["base", 0.0] > bits["base", 0.5]
    summary = tmp_path / "runs" / f"adc-0.5-s3{own}" / "summary.json"
    stamp = summary.stat().st_mtime_ns
    assert dropout.main(arguments) == 0  # nothing is run again
    assert summary.stat().st_mtime_ns == stamp


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders of what has been run, in place of running it."""
    ran: list[str] = []

    def run(keys: list[str]) -> Run:
        folder = Path(keys[-1].removeprefix("out=").strip('"'))
        if "lr=1e18" in keys:
            raise RunFailed("every client failed in round 1", diverged=True)
        rounds = [int(key.removeprefix("rounds=")) for key in keys if key.startswith("rounds=")][-1]
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(compose(keys).to_yaml(folder))
        summary = {"status": "completed", "rounds": rounds, "uplink_bits": 1, "device": "cpu (x86_64)"}
        summary["final_test_accuracy"] = rounds / 100 if rounds > 1 else None  # one round: it diverged
        (folder / "summary.json").write_text(json.dumps(summary))
        ran.append(folder.name)
        return read(folder)

    def read(folder: Path) -> Run:
        clients = pd.DataFrame({"injected": [None]})
        return Run(folder, pd.DataFrame(), clients, json.loads((folder / "summary.json").read_text()))

    monkeypatch.setattr(dropout, "DROPOUT", (0.0,))
    monkeypatch.setattr(dropout.flsplit, "run", run)
    monkeypatch.setattr(dropout, "read_run", read)
    return ran


def test_runs_of_other_settings_are_others_with_a_table_of_their_own(runs: list[str], tmp_path: Path) -> None:
    def make(*seeds: int, **options: int) -> pd.DataFrame:
        return dropout.make(seeds, [f"{key}={value}" for key, value in options.items()], tmp_path / "runs", tmp_path)

    assert make(0, 1)["rounds"].tolist() == [30] * 4
    plain = (tmp_path / "results.csv").read_bytes()
    assert make(0, rounds=2)["rounds"].tolist() == [2] * 2
    assert make(0, 1, rounds=4)["rounds"].tolist() == [4] * 4
    assert (tmp_path / "results.csv").read_bytes() == plain
    assert runs[-4:] == [f"{method}-0-s{seed}-rounds=4" for seed in (0, 1) for method in ("base", "adc")]
    assert len(pd.read_csv(tmp_path / "results-rounds=2.csv")) == 2

    assert make(2).seed.tolist() == [0, 0, 1, 1, 2, 2]  # and seeds that the table has stay in it
    assert (tmp_path / "results.csv").read_bytes().startswith(plain)
    assert make(0, 1, 2)["rounds"].tolist() == [30] * 6 and len(runs) == 4 + 2 + 4 + 2


def test_a_run_that_diverged_is_told(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = dropout.make([0], ["rounds=1"], tmp_path / "runs", tmp_path)
    assert table.final_test_accuracy.isna().all() and (tmp_path / "accuracy-rounds=1.png").exists()
    assert capsys.readouterr().out.splitlines()[0] == "base dropout=0 seed=0: diverged"


def test_a_run_with_other_settings_is_not_taken_for_the_one_asked_for(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout.make([0], ["rounds=2"], tmp_path / "runs", tmp_path)
    monkeypatch.setitem(dropout.METHODS, "adc", ["compressor=adc", "compressor.ratio=0.5"])
    folder = tmp_path / "runs" / "adc-0-s0-rounds=2"
    (tmp_path / "results-rounds=2.csv").unlink()
    said = f"{folder} holds a run with compressor.ratio=0.25, and asked for is compressor.ratio=0.5; remove the folder"
    with pytest.raises(UserError, match=re.escape(said)):
        dropout.make([0], ["rounds=2"], tmp_path / "runs", tmp_path)
    assert len(runs) == 2


def test_a_run_without_finite_numbers_does_not_keep_others_from_being_run(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(dropout.METHODS, "base", ["compressor=base", "lr=1e18"])
    with pytest.raises(RunFailed, match="1 of 2 runs have diverged and have no row: base-0-s0"):
        dropout.make([0], [], tmp_path / "runs", tmp_path)
    assert capsys.readouterr().err == "base-0-s0 has diverged and gets no row: every client failed in round 1\n"
    assert pd.read_csv(tmp_path / "results.csv").method.tolist() == ["adc"] and (tmp_path / "accuracy.png").exists()
    monkeypatch.setitem(dropout.METHODS, "adc", dropout.METHODS["base"])
    with pytest.raises(RunFailed, match="2 of 2 runs"):
        dropout.make([1], [], tmp_path / "runs", tmp_path)


def test_a_row_that_is_there_is_not_run_again(runs: list[str], tmp_path: Path) -> None:
    """Whatever lies in the runs' folder."""
    first = dropout.make([0], [], tmp_path / "runs", tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert dropout.make([0], [], tmp_path / "runs", tmp_path).equals(first) and len(runs) == 2
    assert first.device.tolist() == ["cpu (x86_64)"] * 2 and (first.commit == commit()).all()
    table = tmp_path / "results.csv"
    table.write_text(table.read_text().replace(",commit", ",by"))
    with pytest.raises(UserError, match=r"the columns must be method, dropout, seed, away, .*, commit, got .*, by"):
        dropout.make([0], [], tmp_path / "runs", tmp_path)


def test_the_committed_rows_are_whole(runs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    shutil.copy(dropout.HOME / "results.csv", tmp_path)
    table = dropout.make(dropout.SEEDS, [], tmp_path / "runs", tmp_path)
    assert len(table) == 24 and not (tmp_path / "runs").exists()
    assert (tmp_path / "results.csv").read_bytes() == (dropout.HOME / "results.csv").read_bytes()


def test_a_table_that_was_cut_off_is_refused_before_anything_runs(runs: list[str], tmp_path: Path) -> None:
    dropout.make([0], [], tmp_path / "runs", tmp_path)
    table = tmp_path / "results.csv"
    table.write_text(table.read_text()[:-1])
    with pytest.raises(UserError, match=re.escape(f"{table}, line 3: it does not end in a newline")):
        dropout.make([1], [], tmp_path / "runs", tmp_path)
    assert len(runs) == 2
