"""`startup`: from the command to the line of a round of one training step, over importing torch and timm.

An upper bound of the time to the first step: the step itself, the evaluation of ten images and writing the files are
in it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from experiments.bench.case import Result, compare

GOALS = {"inline": 1.6, "ray": 2.8}
KEYS = ["clients=1", "rounds=1", "local_steps=1", "dataset.test_limit=10"]


def run(*, pairs: int) -> Iterator[Result]:
    """Both engines."""
    for engine, goal in GOALS.items():
        yield compare(
            "startup", f"engine={engine} over importing torch and timm", partial(_command, engine), _imports,
            pairs=pairs, goal=goal, at_least=False, note="digits, vit_micro, a round of one training step",
        )  # fmt: skip


def _command(engine: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        keys = [*KEYS, f"engine={engine}", f"out={Path(folder) / 'run'}"]
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "flsplit.cli", *keys], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            lines = [(time.perf_counter() - began, line) for line in process.stdout]
        rounds = [seconds for seconds, line in lines if line.startswith("round")]
        assert process.returncode == 0 and len(rounds) == 1, lines
        return rounds[0]


def _imports() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, timm"], check=True, capture_output=True)
    return time.perf_counter() - began
