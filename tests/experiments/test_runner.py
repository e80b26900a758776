"""A finished run has its row whatever the machine lacks, and a run that has failed is none."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from helpers.cut import cut_after
from safetensors.torch import load_file, save_file

import flsplit
from experiments import command, runner
from experiments.bench.images import noise
from experiments.folder import check_same
from experiments.point import Point
from experiments.results import Results, commit
from experiments.runner import Place, run_missing
from flsplit.compose import compose
from flsplit.errors import RunFailed, UserError
from flsplit.record.run import Run, read_run

POINT = Point(
    scale="reduced", dataset="cifar100", model="deit_tiny", method="base", seed=1,
    options=("dataset=digits", "model=vit_micro", "model.image_size=8", "dataset.train_limit=64", "batch_size=32"),
)  # fmt: skip
SHORT = replace(POINT, options=(*POINT.options, "dataset.test_limit=20", "budget.base_epochs=null", "rounds=2"))
SUMMARY = {
    "status": "completed", "xi": 1.0, "samples": 64, "final_test_accuracy": 0.1, "best_test_accuracy": 0.2,
    "uplink_bits": 1, "downlink_bits": 1, "sync_bits": 1, "seconds": 1.0, "device": "cpu",
}  # fmt: skip
COLUMNS = ["round", "samples", "uplink_bits", "downlink_bits", "sync_bits", "xi", "train_loss", "test_accuracy"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been run, in place of running it: the first call fails."""
    ran: list[str] = []

    def run(point: Point, folder: Path, place: Place) -> None:
        ran.append(point.slug)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(compose(place.keys(point)).to_yaml(folder))
        status = "failed" if len(ran) == 1 else "completed"
        (folder / "summary.json").write_text(json.dumps({**SUMMARY, "status": status}))
        if status == "failed":
            raise ValueError("a fault")

    def read(folder: Path) -> Run:
        rounds, clients = pd.DataFrame([[1] * 8], columns=COLUMNS), pd.DataFrame({"test_accuracy": [None]})
        return Run(folder, rounds, clients, json.loads((folder / "summary.json").read_text()))

    monkeypatch.setattr(runner, "_run", run)
    monkeypatch.setattr(runner, "read_run", read)
    return ran


def test_a_scale_for_a_gpu_says_so_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "compose", lambda keys: keys)
    monkeypatch.setattr(runner, "execute", lambda config: None)
    for here in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=here: here)
        for scale in ("full", "study", "reduced", "study-cpu"):
            runner._run(replace(POINT, scale=scale), tmp_path / "run", Place(runs=tmp_path))
            said = f"--scale {scale} is meant for a GPU" in capsys.readouterr().err
            assert said == (scale in ("full", "study") and not here)


def test_a_run_that_failed_is_gone_on_with_and_one_that_ended_is_not(runs: list[str], tmp_path: Path) -> None:
    results, place = Results(tmp_path / "results"), Place(runs=tmp_path / "runs")
    with pytest.raises(ValueError, match="a fault"):
        run_missing("fig4", [POINT], results, place)
    assert results.row(POINT) is None
    assert run_missing("fig4", [POINT], results, place) == 1
    assert len(runs) == 2 and results.row(POINT) is not None
    results.path.unlink()
    assert run_missing("fig4", [POINT], results, place) == 1
    assert len(runs) == 2


def test_a_run_that_diverged_has_a_row_without_accuracy(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, place = Results(tmp_path / "results"), Place(runs=tmp_path / "runs")
    runs.append("an earlier one")
    monkeypatch.setitem(SUMMARY, "final_test_accuracy", None)
    assert run_missing("fig4", [POINT], results, place) == 1
    other = replace(POINT, seed=2)
    monkeypatch.setitem(SUMMARY, "best_test_accuracy", None)
    assert run_missing("fig4", [POINT, other], results, place) == 1
    rows = results.table()
    assert rows.final_test_accuracy.isna().all() and rows.best_test_accuracy.isna().tolist() == [False, True]
    assert run_missing("fig4", [POINT, other], results, place) == 0

    tuned = replace(POINT, seed=3)  # on what its one client holds back, which the stand-in scores as no number
    assert run_missing("fig3", [tuned], results, place) == 1
    row = results.row(tuned)
    assert row is not None and pd.isna(row.final_test_accuracy) and pd.isna(row.best_test_accuracy)


@pytest.mark.parametrize("lacking", ["no git", "git that may not be run"])
def test_a_row_is_kept_where_git_is_missing(
    lacking: str, runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    if lacking != "no git":
        (tmp_path / "bin" / "git").write_text("not a program")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert commit() == "unknown"
    results, place = Results(tmp_path / "results"), Place(runs=tmp_path / "runs")
    runs.append("an earlier one")
    run_missing("fig4", [POINT], results, place)
    row = results.row(POINT)
    assert row is not None and row["commit"] == "unknown"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(runs=tmp_path / "runs", overrides=("device=cpu",))


@pytest.mark.parametrize("status", ["completed", "cut off"])
def test_a_run_with_other_settings_is_no_row_of_this_point(status: str, place: Place, tmp_path: Path) -> None:
    folder, results = place.runs / SHORT.slug, Results(tmp_path / "results")
    other = replace(SHORT, options=(*SHORT.options, "lr=0.5"))
    if status == "completed":
        runner._run(other, folder, place)
    else:
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(compose(place.keys(other)).to_yaml(folder))
    before = sorted(path.name for path in folder.iterdir())
    said = f"{folder} holds a run with lr=0.5, and asked for is lr=0.002; remove the folder, or choose another --runs"
    with pytest.raises(UserError, match=re.escape(said)):
        run_missing("fig4", [SHORT], results, place)
    assert results.row(SHORT) is None and sorted(path.name for path in folder.iterdir()) == before


def test_a_run_that_is_the_one_asked_for_is_taken_wherever_it_is_computed(place: Place, tmp_path: Path) -> None:
    folder, results = place.runs / SHORT.slug, Results(tmp_path / "results")
    runner._run(SHORT, folder, place)
    stamp = (folder / "summary.json").stat().st_mtime_ns
    moved = tmp_path / "elsewhere"
    place.runs.rename(moved)
    run_missing("fig4", [SHORT], results, Place(runs=moved, overrides=("engine.cpus_per_client=2",)))
    assert results.row(SHORT) is not None
    assert (moved / SHORT.slug / "summary.json").stat().st_mtime_ns == stamp


def test_weights_and_data_are_settings_and_a_path_is_however_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(tmp_path / "data", train=4, test=2)
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    keys = ["dataset=cifar100", "model=vit_micro", f"dataset.path={tmp_path / 'data'}"]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(compose(keys).to_yaml(folder))
    monkeypatch.chdir(tmp_path)
    check_same(folder, [*keys[:2], "dataset.path=data"])
    with pytest.raises(UserError, match=rf"dataset.path={tmp_path}/data, and asked for is dataset.path={tmp_path}/oth"):
        check_same(folder, [*keys[:2], "dataset.path=other"])


def test_other_weights_in_the_place_of_those_that_a_run_started_from_are_seen(tmp_path: Path) -> None:
    weights, folder = tmp_path / "w.safetensors", tmp_path / "run"
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32).state_dict(), weights)
    keys = [
        "model=timm", "model.name=vit_tiny_patch16_224", "model.image_size=32", f"model.pretrained={weights}",
        "dataset.train_limit=8", "dataset.test_limit=4", "batch_size=4", "clients=1", "rounds=1", "engine=inline",
    ]  # fmt: skip
    assert flsplit.run([*keys, f"out={folder}"]).summary["weights"]
    check_same(folder, keys)
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(
        UserError, match=rf"{folder} holds a run that started from other weights than {weights} has now"
    ):
        check_same(folder, keys)


def test_the_commit_of_a_row_is_that_of_the_code_that_trained(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(commit: str) -> str:
        monkeypatch.setattr("experiments.folder.commit", lambda: commit)
        results = Results(tmp_path / commit)
        run_missing("fig4", [SHORT], results, place)
        row = results.row(SHORT)
        assert row is not None
        return str(row["commit"])

    assert at("abc") == "abc"
    assert at("def") == "abc"  # nothing is trained
    folder = place.runs / SHORT.slug
    (folder / "summary.json").unlink()
    with cut_after(1), pytest.raises(KeyboardInterrupt):
        shutil.rmtree(folder)
        at("old")
    assert at("new") == "old+new"
    folder.with_name(f"{folder.name}.commit").unlink()
    assert at("later") == "unknown"


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (1, "it does not end in a newline, so it may have been cut off"),  # the newline alone
        (4, "it does not end in a newline"),  # a part of the commit
        (len(",cpu,unknown\n"), "it does not end in a newline"),  # device and commit
        (len("0,cpu,unknown\n"), "it does not end in a newline"),  # and of the seconds a digit
        (-1, "device is missing; the row has been cut off"),
        (-2, "commit is missing; the row has been cut off"),
    ],
)
def test_a_row_that_was_cut_off_is_refused_before_anything_runs(
    cut: int, said: str, runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.folder.commit", lambda: "unknown")
    results, place = Results(tmp_path / "results"), Place(runs=tmp_path / "runs")
    runs.append("an earlier one")
    run_missing("fig4", [POINT, replace(POINT, seed=2)], results, place)
    whole = results.path.read_text()
    ends = {-1: ",cpu,unknown\n", -2: ",unknown\n"}
    content = whole[:-cut] if cut > 0 else whole.removesuffix(ends[cut]) + "\n"
    results.path.write_text(content)
    with pytest.raises(UserError, match=re.escape(f"{results.path}, line 3: {said}")):
        run_missing("fig4", [POINT, replace(POINT, seed=3)], results, place)
    assert len(runs) == 3 and results.path.read_text() == content


def test_no_row_is_glued_to_one_that_was_cut_off_meanwhile(place: Place, tmp_path: Path) -> None:
    results, other = Results(tmp_path / "results"), replace(SHORT, seed=2)
    run_missing("fig4", [SHORT], results, place)
    whole, run = results.path.read_text(), read_run(place.runs / SHORT.slug)
    results.path.write_text(whole[:-1])
    with pytest.raises(UserError, match="line 2: it does not end in a newline"):
        results.add("fig4", other, run, "abc")
    assert results.path.read_text() == whole[:-1] and results.curve(other) is None
    results.path.write_text(whole)
    results.add("fig4", other, run, "abc")
    assert len(results.table()) == 2


def test_a_point_that_diverges_does_not_keep_others_from_being_run(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, wild = Results(tmp_path / "results"), replace(SHORT, options=(*SHORT.options, "lr=1e18"))
    for count in (2, 1):  # of what is missing; a second start does not claim that it was killed
        with pytest.raises(RunFailed, match=re.escape(f"1 of {count} runs have diverged and have no row: {wild.slug}")):
            run_missing("fig4", [wild, SHORT], results, place)
        said = capsys.readouterr().err
        assert f"{wild.slug} has diverged and gets no row: every client failed in round 1; client 0: its " in said
        assert "killed" not in said and ("there is no checkpoint of the run; it starts over" in said) == (count == 1)
    assert results.row(SHORT) is not None and len(results.table()) == 1


def test_another_failure_ends_all(place: Place, tmp_path: Path) -> None:
    results, broken = Results(tmp_path / "results"), replace(SHORT, options=(*SHORT.options, "faults.crash=1"))
    with pytest.raises(RunFailed, match="every client failed in round 1; client 0: it has crashed"):
        run_missing("fig4", [broken, SHORT], results, place)
    assert results.row(SHORT) is None


def test_a_fault_keeps_its_traceback(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert command.ended("experiments.paper", lambda: [].pop()) == 1
    [file] = tmp_path.iterdir()
    said = "experiments.paper: IndexError: pop from empty list; the traceback is in"
    assert capsys.readouterr().err == f"{said} {file}\n" and "ended" in file.read_text()
