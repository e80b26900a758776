"""`memory`: what all processes of a run on Ray hold together, Ray's own among them.

Proportional set size: a page that several processes share counts once. The largest sum seen while the run goes on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.bench.case import Result, measure

KEYS = ["clients=4", "rounds=12", "engine=ray", "device=cpu"]
EVERY = 0.5  # seconds between two looks


def run(*, pairs: int) -> Iterator[Result]:
    """Gigabytes of a run with as many one-thread workers as there are CPUs, at most four."""
    yield measure(
        "memory", "GB (PSS) of all processes of a run on Ray, two workers on 2 CPUs", gigabytes, pairs=pairs, goal=1.8,
        at_least=False, note="digits, vit_micro, 4 clients",
    )  # fmt: skip


def gigabytes() -> float:
    """The peak of one run."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "flsplit.cli", *KEYS, f"out={folder}/run"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        most = 0
        while process.poll() is None:
            most = max(most, sum(map(proportional, family(process.pid))))
            time.sleep(EVERY)
        assert process.returncode == 0
    return most / 1e9


def family(leader: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has gone
            continue

    def below(pid: int) -> bool:
        while pid != leader and pid in parents:
            pid = parents[pid]
        return pid == leader

    return [pid for pid in parents if below(pid)]


def proportional(pid: int) -> int:
    """Bytes of a process; 0 if it has gone."""
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
