"""Files that clients leave: what the next round needs stays, the rest is written over."""

from __future__ import annotations

from pathlib import Path

import flsplit
from flsplit.checkpoint import ClientFiles


def test_only_what_is_not_needed_gives_room(tmp_path: Path) -> None:
    files, old, kept, new = ClientFiles(tmp_path), *(tmp_path / f"{name}.npy" for name in ("0.1", "1.1", "0.2"))
    old.write_text("old")
    kept.write_text("kept")
    files.make_room(new)
    assert not new.exists()
    files.keep({kept.name})
    files.make_room(kept)
    files.make_room(new)
    files.make_room(tmp_path / "1.2.npy")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"1.1.npy": "kept", "0.2.npy": "old"}


def test_a_run_leaves_no_more_files_than_clients_and_those_of_a_round(tmp_path: Path) -> None:
    run = flsplit.run([
        "engine=inline", "clients=6", "clients_per_round=2", "rounds=9", "local_steps=1", "batch_size=4",
        "dataset.train_limit=60", "dataset.test_limit=10", "partition=iid", "eval_every=9", f"out={tmp_path / 'run'}",
    ])  # fmt: skip
    names = [path.name for path in (tmp_path / "run" / "checkpoint" / "clients").iterdir()]
    assert run.clients.client.nunique() <= len(names) <= run.clients.client.nunique() + 2
