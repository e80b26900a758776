"""Command lines, refused or accepted, that start in an empty folder; and a run to resume."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import SMALL, Accepted, Refused, contents, one_line

import flsplit
from flsplit import cli, experiment


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test starts in an empty folder, on a machine without GPU, Hub or downloaded models."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command line that must be refused: nothing is trained and no file changes; gives the line."""

    def run(*arguments: str) -> str:
        before = contents(tmp_path)
        monkeypatch.setattr(experiment, "execute", must_not_run)
        code = cli.main(list(arguments))
        output = capsys.readouterr()
        assert (code, output.out) == (2, "")
        assert contents(tmp_path) == before
        return one_line(output.err)

    return run


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> Accepted:
    """Runs a command line up to the first step of training; gives the configurations of its jobs."""

    def run(*arguments: str) -> list[Any]:
        configs: list[Any] = []
        monkeypatch.setattr(experiment, "execute", lambda config, **_: configs.append(config))
        assert cli.main(list(arguments)) == 0
        return configs

    return run


def must_not_run(*_: object, **__: object) -> None:
    pytest.fail("training has begun")


@pytest.fixture(scope="session")
def finished(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished") / "run"
    flsplit.run([*SMALL, f"out={folder}"])
    yield folder


@pytest.fixture
def a_run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of two rounds; its checkpoint names files by their names only."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
