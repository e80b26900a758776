"""The README's examples, run as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
SMALL = ["engine=inline", "clients=3", "rounds=2", "dataset.train_limit=100", "dataset.test_limit=40", "out=run"]


def blocks() -> dict[str, str]:
    """The files that the README shows, by the path in their first line."""
    found = re.findall(r"```(?:python|yaml)\n# (mine/\S+)\n(.*?)```", README, re.DOTALL)
    return dict(found)


def test_the_examples_are_short() -> None:
    lengths = {path: len(text.splitlines()) + 1 for path, text in blocks().items()}
    assert len(lengths) == 4 and max(lengths.values()) <= 30


@pytest.mark.parametrize("group", ["compressor", "strategy"])
def test_an_example_runs_by_the_command_below_it(group: str, tmp_path: Path) -> None:
    for path, text in blocks().items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    [command] = re.findall(rf"^flsplit (--config-dir mine/conf {group}=.*)$", README, re.MULTILINE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flsplit.cli", *shlex.split(command), *SMALL], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rounds = pd.read_parquet(tmp_path / "run" / "rounds.parquet")
    assert len(rounds) == 2 and rounds.train_loss.notna().all()
    if group == "compressor":
        assert rounds.xi.iloc[-1] == pytest.approx(5 / 17, abs=1e-3)  # CLS and 4 means of 4 instead of 17 tokens


def test_the_keys_that_the_readme_lists_exist() -> None:
    from flsplit.compose import compose

    config = compose([])
    for key, value in re.findall(r"`(clients|rounds|local_epochs|batch_size|eval_every|seed)` (\d+)", README):
        assert getattr(config, key) == int(value)
