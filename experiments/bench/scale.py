"""`scale`: what clients cost beyond their training, in memory and in time, from 10 to 1,000 of them.

Time is that of whole rounds as a user waits for them, from the end of one round to the end of the next: choosing
clients, handing out models, training, averaging, keeping moments, tables and checkpoint. The first two rounds are left
out, since in them a process does things once and clients' files are made, those of the last checkpoint and those of the
next, which are written over from then on; so are evaluations. From it goes the time of one client that takes the same
number of steps in one round; what is left, divided by the clients and rounds (less that one), is what a taking-part
client adds to a round beyond its training. The two runs alternate.

Memory is the peak of a process of its own. What an idle client adds is the difference between 1,000 clients and as many
as take part, divided by the idle ones. With Ray it is that of the server's process: the workers know no idle client.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import flsplit.engine
from experiments.bench.case import Result, measure
from experiments.bench.workload import Workload
from flsplit.client.app import app
from flsplit.compose import compose
from flsplit.display.console import Progress
from flsplit.experiment import lay_out, prepare
from flsplit.server.app import Server

MOST, BATCH = 1000, 16
SMALL = Workload(model="vit_micro", size=8, pixels=8, batch=BATCH, steps=MOST)  # a batch for each of 1,000 clients
ROUNDS = {1: 40, 10: 10, 200: 1}  # rounds that are timed, by clients that take part


def run(*, pairs: int) -> Iterator[Result]:
    """Memory per idle client (MB), then seconds per taking-part client and round."""
    with SMALL.made() as made:
        for engine in ("inline", "ray"):
            yield measure(
                "scale", f"MB of memory per idle client, engine={engine}",
                partial(idle_megabytes, made, engine=engine, clients=MOST, taking_part=10), pairs=pairs, goal=0.1,
                at_least=False, note=f"{made.words}, {MOST} clients over 10, 10 of them a round, 3 rounds",
            )  # fmt: skip
        for clients, taking_part in ((10, 1), (100, 1), (1000, 10), (200, 200)):
            rounds = ROUNDS[taking_part]
            yield measure(
                "scale", f"seconds per taking-part client and round beyond its training, {taking_part} of {clients}",
                partial(seconds_beyond, made, clients=clients, taking_part=taking_part, rounds=rounds), pairs=pairs,
                goal=0.005, at_least=False,
                note=f"{made.words}, augment=none, 1 thread, inline, one step each, {rounds} rounds",
            )  # fmt: skip


def seconds_beyond(workload: Workload, *, clients: int, taking_part: int, rounds: int) -> float:
    """Seconds that a taking-part client adds to a round beyond its training."""
    passes = taking_part * rounds
    many = rounds_seconds(workload.keys(**_sizes(clients, taking_part, rounds + 3)))
    one = rounds_seconds(workload.keys(**{**_sizes(1, 1, 4), "local_steps": passes}))
    return (sum(many[2:-1]) - one[2]) / max(1, passes - 1)


def rounds_seconds(keys: list[str]) -> list[float]:
    """Run an experiment in this process; seconds from the end of each round to the end of the next, tables and all."""
    prepared = prepare(compose(keys))
    recorder, checkpoints = lay_out(prepared)
    with Clock(rounds=None, quiet=True) as progress:
        server = Server(prepared.plan.to_json(), recorder, checkpoints, progress, workers=prepared.workers)
        flsplit.engine.run(prepared.plan, app, prepared.workers, server.run)
    return progress.rounds


class Clock(Progress):
    """Shows nothing and notes how long rounds take; the first includes what comes before it."""

    def __enter__(self) -> Clock:
        super().__enter__()
        self.rounds: list[float] = []
        self._ended = time.perf_counter()
        return self

    def round_done(self, row: Mapping[str, Any]) -> None:
        """See `Progress`."""
        now = time.perf_counter()
        self.rounds.append(now - self._ended)
        self._ended = now


def idle_megabytes(workload: Workload, *, engine: str, clients: int, taking_part: int) -> float:
    """Megabytes that a client adds which takes no part."""
    many, few = (peak_megabytes(workload, engine, count, taking_part) for count in (clients, taking_part))
    return (many - few) / (clients - taking_part)


def peak_megabytes(workload: Workload, engine: str, clients: int, taking_part: int) -> float:
    """Peak resident memory of an experiment of three rounds (with Ray: of its server), in a process of its own."""
    keys = workload.keys(**_sizes(clients, taking_part, 3), engine=engine)
    code = "import sys, flsplit; print(flsplit.run(sys.argv[1:]).summary['peak_rss_mb'])"
    done = subprocess.run([sys.executable, "-c", code, *keys], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _sizes(clients: int, taking_part: int, rounds: int) -> dict[str, object]:
    """One step each; evaluation after the last round only, which is not timed; images as they are.

    Augmentation handles many batches of a client together, so one client's long round would get it cheaper: that is
    the data pipeline's affair, which has a case of its own.
    """
    return {
        "clients": clients, "clients_per_round": taking_part, "rounds": rounds, "local_steps": 1,
        "eval_every": rounds, "engine__cpus_per_client": 1, "augment": "none",
    }  # fmt: skip
