"""Output that nobody reads to its end, as with `| head`: the program ends quietly, and a run keeps what it has done."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import SMALL

ROOT = Path(__file__).parents[2]


def unread(*command: str) -> tuple[int, str]:
    """Exit code and stderr of a module whose reader leaves at once."""
    line = f"{shlex.join([sys.executable, '-m', *command])} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", [
    ["flsplit.cli", "--help"],
    ["flsplit.cli", "--version"],
    ["experiments.study", "time_to_accuracy", "--list"],
    ["experiments.paper", "fig4", "--list"],
])  # fmt: skip
@pytest.mark.some
def test_what_is_only_shown_ends_quietly(command: list[str]) -> None:
    assert unread(*command) == (141, "")


@pytest.mark.slow
def test_a_run_is_whole(here: Path) -> None:
    code, error = unread("flsplit.cli", *SMALL, "out=a")
    assert code in (0, 141) and "BrokenPipe" not in error and "Traceback" not in error
    assert json.loads((here / "a" / "summary.json").read_text())["status"] == "completed"
