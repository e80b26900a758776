"""Runs of extensions that lie in folders of their own, as their users would start them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import flsplit
from flsplit import cli
from flsplit.record.run import read_run

SMALL = ["engine=inline", "dataset.train_limit=60", "dataset.test_limit=40", "clients=3", "rounds=2", "batch_size=10"]
Started = Callable[..., "flsplit.Run"]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extensions are found by dotted path from the folder at hand."""
    monkeypatch.chdir(Path(__file__).parent)


@pytest.fixture
def started(tmp_path: Path) -> Started:
    """Starts a small run from the command line."""

    def start(*arguments: str, out: str = "run") -> flsplit.Run:
        assert cli.main([*SMALL, f"out={tmp_path / out}", *arguments]) == 0
        return read_run(tmp_path / out)

    return start
