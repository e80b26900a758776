"""`gpu`: `single`, `adc` and `clients` at 224 px in bf16 on a GPU; nothing where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from experiments.bench import adc, clients, single
from experiments.bench.case import Result
from experiments.bench.workload import Workload

ONE = Workload(size=224, steps=100, precision="bf16", device="cuda")
MANY = Workload(size=224, steps=10 * clients.CLIENTS, precision="bf16", device="cuda")


def run(*, pairs: int) -> Iterator[Result]:
    """The three cases, each with its own goals."""
    if not torch.cuda.is_available():
        return
    yield from single.run(pairs=pairs, workload=ONE, case="gpu")
    yield from adc.run(pairs=pairs, workload=ONE, case="gpu")
    yield from clients.run(pairs=pairs, workload=MANY, case="gpu")
