"""Files that clients leave: what the next round needs stays, the rest is written over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import flsplit
from flsplit.server import app as server_app
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


@pytest.mark.some
@pytest.mark.parametrize(("save_every", "states"), [(0, 1), (float("inf"), 2)])
def test_a_run_leaves_no_more_files_than_it_needs(
    save_every: float, states: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the last checkpoint, those of the last round if it is another, and those that a round writes."""
    monkeypatch.setattr(server_app, "SAVE_EVERY", save_every)
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


def test_a_checkpoint_never_writes_over_the_models_of_the_last_one(tmp_path: Path) -> None:
    def save(checkpoints: Checkpoints, round: int) -> set[float]:
        client_model, server_model = (SideState(torch.full((3,), float(round))) for _ in range(2))
        checkpoints.save(State(round=round, client_model=client_model, server_model=server_model))
        return {load_file(path)["client.weights"][0].item() for path in tmp_path.glob("*.safetensors")}

    first = Checkpoints(tmp_path)
    first.create()
    assert save(first, 2) == {2.0}
    assert save(first, 4) == {2.0, 4.0}
    assert save(first, 5) == {4.0, 5.0}
    resumed = Checkpoints(tmp_path)
    resumed.load()
    assert save(resumed, 6) == {5.0, 6.0}
