"""`checks`: what a run waits for its looks at what it does, in percent of the demo's whole time.

Looks at numbers that are not finite, digests of checkpoints, tables, clients' files, data and weights, waits for the
disk, the folder's lock, and the estimate of memory. The demo runs inline, where all of them are made in one process.
The time is taken around the calls within the run, because a ratio of two runs is lost in what a shared machine does
between them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

import flsplit
from experiments.bench.case import Result, measure
from experiments.bench.watch import watched
from flsplit.client import local_run
from flsplit.data import cache
from flsplit.experiment import preparation, refusals
from flsplit.record import atomic, tables
from flsplit.split import joint, side
from flsplit.transport import vectors

CHECKS: list[tuple[Any, str]] = [
    (side, "is_finite"), (joint, "is_finite"), (local_run, "is_finite"), (side.Side, "brace"),
    (atomic, "digest"), (tables, "content"), (vectors, "_digest"), (cache, "digest_of"), (preparation, "origin_of"),
    (os, "fsync"), (atomic.Settling, "finish"), (FileLock, "acquire"), (refusals, "_check_memory"),
]  # fmt: skip


def run(*, pairs: int, keys: tuple[str, ...] = ()) -> Iterator[Result]:
    """Percent of the demo's time, from its start to its end."""
    yield measure(
        "checks", "% of the demo (inline), from its start to its end, that its checks take", partial(share, keys),
        pairs=pairs, goal=1, at_least=False, note=" ".join(["flsplit engine=inline", *keys]),
    )  # fmt: skip


def share(keys: tuple[str, ...]) -> float:
    """Percent of a run's time that its checks take."""
    with TemporaryDirectory() as out, watched(*CHECKS) as spent:
        began = time.perf_counter()
        flsplit.run(["engine=inline", *keys, f"out={Path(out) / 'run'}"])
        return 100 * sum(spent) / (time.perf_counter() - began)
