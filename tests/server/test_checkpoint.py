"""Files that clients leave: what the next round needs stays, the rest is written over."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import flsplit
from flsplit.errors import UserError
from flsplit.record.folder import alone_in
from flsplit.record.run import read_run
from flsplit.record.tables import Recorder
from flsplit.server import origin, saving
from flsplit.server.checkpoint import Checkpoints, ClientFiles, State
from flsplit.split.side import SideState


def test_only_what_is_not_needed_gives_room(tmp_path: Path) -> None:
    files, old, kept, new = ClientFiles(tmp_path), *(tmp_path / f"{name}.npy" for name in ("0.1", "1.1", "0.2"))
    old.write_text("old")
    kept.write_text("kept")
    files.make_room(new)
    assert not new.exists()
    files.keep({str(kept)})
    files.make_room(kept)
    files.make_room(new)
    files.make_room(tmp_path / "1.2.npy")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"1.1.npy": "kept", "0.2.npy": "old"}


def test_an_evaluation_that_is_taken_back_survives_kills_before_the_checkpoint(tmp_path: Path) -> None:
    """Killed between tables and checkpoint, however often, the run has the tables that the checkpoint needs."""
    (tmp_path / "checkpoint").mkdir()
    recorder = Recorder(tmp_path)
    recorder.add({"round": 1, "test_accuracy": 0.5}, [{"round": 1, "client": 0, "test_accuracy": 0.25}])
    recorder.save()
    needed = recorder.contents
    for _ in range(3):
        recorder = Recorder(tmp_path)
        recorder.restore(1, needed)
        assert recorder.rounds[0]["test_accuracy"] == 0.5
        recorder.unscore()
        recorder.add({"round": 2}, [{"round": 2, "client": 0}])
        recorder.save()
        assert [row["test_accuracy"] for row in recorder.rounds] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize(("save_every", "states"), [(0, 2), (float("inf"), 3)])
def test_a_run_leaves_no_more_files_than_it_needs(
    save_every: float, states: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the last two checkpoints, of the last round if it is another, and those that a round writes."""
    monkeypatch.setattr(saving, "SAVE_EVERY", save_every)
    run = flsplit.run([
        "engine=inline", "clients=6", "clients_per_round=2", "rounds=9", "local_steps=1", "batch_size=4",
        "dataset.train_limit=60", "dataset.test_limit=10", "partition=iid", "eval_every=9", f"out={tmp_path / 'run'}",
    ])  # fmt: skip
    names = [*(tmp_path / "run" / "checkpoint" / "clients").glob("*.npy")]
    assert run.clients.client.nunique() <= len(names) <= states * run.clients.client.nunique() + 2


def test_what_a_killed_process_was_about_to_make_goes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.create()
    for name in ("0.1.npy", "1.1.npy.room"):
        (checkpoints.clients.folder / name).touch()
    checkpoints.create()
    assert [path.name for path in checkpoints.clients.folder.iterdir()] == ["0.1.npy"]


def saved(checkpoints: Checkpoints, round: int) -> set[float]:
    """Save a state; the models that are there afterwards."""
    client_model, server_model = (SideState(torch.full((3,), float(round))) for _ in range(2))
    recorder = Recorder(checkpoints.folder.parent)
    for number in range(1, round + 1):
        recorder.add({"round": number}, [])
    recorder.save()
    checkpoints.save(State(round=round, client_model=client_model, server_model=server_model, tables=recorder.contents))
    files = checkpoints.folder.glob("*.safetensors")
    return {load_file(path)["client.weights"][0].item() for path in files}


def test_a_checkpoint_never_writes_over_the_models_of_the_last_two(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path / "checkpoint")
    first.create()
    assert saved(first, 2) == {2.0}
    assert saved(first, 4) == {2.0, 4.0}
    assert saved(first, 5) == {2.0, 4.0, 5.0}
    assert saved(first, 6) == {4.0, 5.0, 6.0}
    resumed = Checkpoints(tmp_path / "checkpoint")
    resumed.load()
    assert saved(resumed, 7) == {5.0, 6.0, 7.0}


KEYS = [
    "engine=inline", "clients=3", "batch_size=8", "dataset.train_limit=60", "dataset.test_limit=20", "partition=iid",
    "strategy=splitfed_v3", "strategy.aggregator=fedadam", "compressor=base",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rounds, each with a checkpoint, and what it would be with a fourth."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "SAVE_EVERY", 0.0)
        flsplit.run([*KEYS, "rounds=3", f"out={folder / 'cut'}"])
        flsplit.run([*KEYS, "rounds=4", f"out={folder / 'run'}"])
    return folder


FILES = ("state.json", "before.json", "models", "client", "rounds.parquet", "clients.parquet", "config.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("which", FILES)
def test_a_flipped_bit_is_found_or_changes_nothing(which: str, seed: int, whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole / "cut", tmp_path / "run")
    draw = random.Random(f"{which}{seed}")
    files = {
        "models": sorted(out.glob("checkpoint/models*")),
        "client": sorted(out.glob("checkpoint/clients/*.npy")),
    }.get(which, [path for path in (out / which, out / "checkpoint" / which) if path.exists()])
    path = draw.choice(files)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    try:
        resumed = flsplit.run([f"resume={out}", "rounds=4"])
    except UserError as error:
        assert "\n" not in str(error) and (str(out) in str(error) or which == "config.yaml")
        return
    expected = read_run(whole / "run")
    pd.testing.assert_frame_equal(expected.rounds.drop(columns="seconds"), resumed.rounds.drop(columns="seconds"))
    pd.testing.assert_frame_equal(expected.clients, resumed.clients)


@pytest.mark.some
@pytest.mark.parametrize("name", ["state.json", "models", "client", "rounds.parquet"])
def test_where_the_last_checkpoint_is_damaged_the_one_before_is_used(name: str, whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole / "cut", tmp_path / "run")
    state = json.loads((out / "checkpoint" / "state.json").read_text())
    path = {
        "state.json": out / "checkpoint" / "state.json",
        "models": out / "checkpoint" / state["file"],
        "client": out / "checkpoint" / "clients" / state["kept"]["1"]["weights"],
        "rounds.parquet": out / "rounds.parquet",
    }[name]
    path.write_bytes(path.read_bytes()[:-9])
    resumed = flsplit.run([f"resume={out}", "rounds=4"])
    [note] = resumed.summary["notes"]
    assert path.name in note and "goes on from the checkpoint before it, of round 2" in note
    expected = read_run(whole / "run")
    pd.testing.assert_frame_equal(expected.clients, resumed.clients)


def test_where_both_are_damaged_the_run_is_refused(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole / "cut", tmp_path / "run")
    for path in out.glob("checkpoint/models*"):
        path.write_bytes(b"xx")
    with pytest.raises(UserError, match=r"models-\d.safetensors is damaged; start anew in another folder"):
        flsplit.run([f"resume={out}", "rounds=4"])


@pytest.mark.slow
def test_what_is_not_as_it_was(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole / "cut", tmp_path / "run")
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("lr: ", "lr: 1"))
    with pytest.raises(UserError, match=r"lr=\S+ in its config\.yaml, which was \S+ when it ran; start anew, or go on"):
        flsplit.run([f"resume={out}", "rounds=4"])
    run = flsplit.run([f"resume={out}", "rounds=4", "resume.force=true"])
    assert run.summary["notes"][0].startswith("resumed from round 3 by force: lr=")
    again = flsplit.run([f"resume={out}", "rounds=5"])  # it is the run's own by now
    assert again.summary["notes"] == run.summary["notes"]


def test_another_version_is_said(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = shutil.copytree(whole / "cut", tmp_path / "run")
    monkeypatch.setattr(origin, "_version", lambda name: "0.0.1")
    run = flsplit.run([f"resume={out}", "rounds=4"])
    assert len(run.summary["notes"]) == 3 and "torch was" in "".join(run.summary["notes"])


def test_two_runs_never_share_a_folder(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole / "cut", tmp_path / "run")
    refused = pytest.raises(UserError, match=rf"in use by process {os.getpid()} on {socket.gethostname()}")
    with alone_in(out, resumed=True), refused:
        flsplit.run([f"resume={out}", "rounds=4"])
    with alone_in(tmp_path / "new", resumed=False), pytest.raises(UserError, match="in use by process"):
        flsplit.run([*KEYS, "rounds=1", f"out={tmp_path / 'new'}"])
    assert flsplit.run([f"resume={out}", "rounds=4"]).summary["rounds"] == 4


@pytest.mark.slow
def test_a_run_without_a_checkpoint_starts_over_and_says_so(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(whole / "cut" / "config.yaml", out)
    resumed = flsplit.run([f"resume={out}", "rounds=4"])
    assert resumed.summary["notes"] == ["there is no checkpoint of the run; it starts over"]
    expected = read_run(whole / "run")
    pd.testing.assert_frame_equal(expected.clients, resumed.clients)
