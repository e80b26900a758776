"""`flwr run .`: Flower's own command line runs an experiment."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
KEYS = "rounds=2 dataset.train_limit=80 dataset.test_limit=40"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A Flower home of this test's own, whose background SuperLink ends with the test."""
    if not Path("/proc").is_dir():
        pytest.skip("finding the SuperLink that Flower starts needs /proc")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 39091)) == 0:
            pytest.skip("a SuperLink runs on this machine already, on Flower's port")
    yield tmp_path / "flwr"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if f"FLWR_HOME={tmp_path / 'flwr'}\0".encode() in environment + b"\0":
            os.kill(int(process.name), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_flwr_run_gives_the_numbers_of_flsplit(home: Path, tmp_path: Path) -> None:
    import flsplit

    app = tmp_path / "app"
    shutil.copytree(
        ROOT, app, ignore=shutil.ignore_patterns(".*", "tests", "outputs", "*.egg-info", "build", "__pycache__")
    )
    out = tmp_path / "run"
    done = subprocess.run(
        ["flwr", "run", ".", "--stream", "--run-config", f'overrides="{KEYS} out={out}"'], cwd=app, timeout=800,
        capture_output=True, text=True, check=False,
        env={
            **os.environ, "FLWR_HOME": str(home), "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        },
    )  # fmt: skip
    assert (out / "summary.json").exists(), done.stdout[-3000:] + done.stderr[-3000:]
    expected = flsplit.run([*KEYS.split(), "engine=inline", "clients=2", f"out={tmp_path / 'inline'}"]).rounds
    found = pd.read_parquet(out / "rounds.parquet")
    pd.testing.assert_frame_equal(found.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True)
