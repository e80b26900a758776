"""A run that is followed in Weights & Biases, offline."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.ended import end_in

import flsplit
from flsplit.cli import main
from flsplit.record.loggers.wandb import short

SMALL = ["dataset.train_limit=40", "dataset.test_limit=20", "clients=2", "engine=inline", "eval_every=2"]
pytestmark = pytest.mark.slow


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


def test_a_long_name_is_cut_and_still_told_from_others() -> None:
    names = ["x" * 200 + end for end in ("", "a", "b")]
    assert [len(short(name)) for name in names] == [128] * 3 and len(set(map(short, names))) == 3
    assert short("x" * 128) == "x" * 128 and short("") == ""


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


def wandb_records(file: Path) -> list[tuple[str, Any]]:
    """All of a run that has ended: W&B's process writes the last a moment after `finish` has returned."""
    for _ in range(200):
        if "exit" in dict(found := list(read_records(file))):
            break
        time.sleep(0.05)
    return found


def read_records(file: Path) -> Iterator[tuple[str, Any]]:
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
            end_in(patch, 3, error)
            with pytest.raises(type(error)):
                flsplit.run([f"resume={out}", "rounds=4"])
        file = told()
        assert dict(wandb_records(file))["exit"].exit_code == 1
        assert wandb_summary(file)["status"] == status
        assert wandb_column(file, "round") == [1, 2]
