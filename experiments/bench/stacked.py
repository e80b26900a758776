"""`stacked`: clients trained as one (`engine.stack`), over one after another.

Both are flsplit in one process, in samples per second of the round with start-up and evaluation apart: small clients,
as edge devices are, for which a machine is too wide. On a CPU with one torch thread, which tells what stacking saves in
work, and with as many as there are cores, which tells what it saves on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import torch

from experiments.bench.case import Result, compare
from experiments.bench.workload import Workload

STEPS = 4  # of each client and round
CPU = Workload(model="vit_micro", size=8, pixels=8)
GPU = Workload(size=224, precision="bf16", device="cuda")
CLIENTS, BATCHES = (8, 32), (8, 16, 32)


def run(*, pairs: int) -> Iterator[Result]:
    """Samples per second, by method, threads, number of clients and batch size."""
    workload = GPU if torch.cuda.is_available() else CPU
    threads = (1, os.cpu_count() or 1) if workload.device == "cpu" else (1,)
    for method in ("base", "adc"):
        for clients in CLIENTS:
            for batch in BATCHES:
                with replace(workload, batch=batch, steps=STEPS * clients).made() as made:
                    for cpus in threads:
                        yield gain(made, method=method, clients=clients, threads=cpus, pairs=pairs)


def gain(made: Workload, *, method: str, clients: int, threads: int, pairs: int) -> Result:
    """What stacking all clients brings."""

    def samples_per_second(stack: int) -> float:
        return made.run(
            compressor=method, clients=clients, augment="none", local_steps=STEPS, rounds=2, eval_every=2,
            engine__cpus_per_client=threads, engine__stack=stack,
        )  # fmt: skip

    return compare(
        "stacked", f"samples/s of {clients} clients stacked over one after another, {method}",
        lambda: samples_per_second(clients), lambda: samples_per_second(1), pairs=pairs, goal=None, at_least=True,
        note=f"{made.words}, inline, {threads} thread{'s' * (threads > 1)}, {STEPS} steps a client and round",
    )  # fmt: skip
