"""`startup`: from the command to the end of a run of one training step, over importing torch and timm.

An upper bound of the time to the first step: evaluation of ten images, writing the files and stopping are in it.
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

GOALS = {"inline": 1.6, "ray": 4.0}
KEYS = ["clients=1", "rounds=1", "local_steps=1", "dataset.test_limit=10"]


def run(*, pairs: int) -> Iterator[Result]:
    """Both engines."""
    for engine, goal in GOALS.items():
        yield compare(
            "startup", f"engine={engine} over importing torch and timm", partial(_command, engine), _imports,
            pairs=pairs, goal=goal, at_least=False, note="digits, vit_micro, whole command of one training step",
        )  # fmt: skip


def _command(engine: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        keys = [*KEYS, f"engine={engine}", f"out={Path(folder) / 'run'}"]
        return _seconds(["-m", "flsplit.cli", *keys])


def _imports() -> float:
    return _seconds(["-c", "import torch, timm"])


def _seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began
