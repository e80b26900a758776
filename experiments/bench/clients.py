"""`clients`: what many clients cost over one, and what Ray's processes bring over threads; the work is the same.

Both are in samples per second of flsplit itself, start-up and evaluation apart, `base`, all clients in every round.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from experiments.bench.case import Result, compare
from experiments.bench.workload import Workload

CLIENTS, OF_RAY = 100, 10  # clients in all, and with Ray by CPU
CPU = Workload(model="vit_micro", size=32, batch=32, steps=2 * CLIENTS)


def run(*, pairs: int, workload: Workload = CPU, case: str = "clients", clients: int = CLIENTS) -> Iterator[Result]:
    """Many clients over one in one process, then Ray over one process with as many threads."""
    cpus = os.cpu_count() or 1
    of_ray = min(clients, OF_RAY * cpus)
    with workload.made() as made:
        note = f"{made.words}, {made.steps} steps in one round"
        yield compare(
            case, f"samples/s of {clients} clients over those of 1 client, the same work, inline",
            lambda: made.run(clients=clients, engine__cpus_per_client=1), lambda: made.run(engine__cpus_per_client=1),
            pairs=pairs, goal=0.95, at_least=True, note=f"{note}, 1 thread",
        )  # fmt: skip
        workers = f"{cpus} one-thread workers" if made.device == "cpu" else "one-thread workers, at most 4 a GPU,"
        yield compare(
            case, f"samples/s of Ray with {workers} over inline with {cpus} threads",
            lambda: made.run(clients=of_ray, engine="ray", engine__cpus_per_client=1),
            lambda: made.run(clients=of_ray, engine__cpus_per_client=cpus),
            pairs=pairs, goal=1.1, at_least=True, note=f"{note}, {of_ray} clients",
        )  # fmt: skip
