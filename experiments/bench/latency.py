"""`latency`: what a round of ten clients takes on Ray when nobody trains: tasks out, reports back; warm processes.

And the same with models: those of `vit_micro` at 8 px go to each client and come back, and the server averages nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial

from flwr.serverapp import Grid

import flsplit.engine
from experiments.bench.case import Result, measure
from experiments.bench.latency_client import app
from flsplit.assembly import assembly_for
from flsplit.compose import compose
from flsplit.experiment import prepare
from flsplit.server.messenger import Messenger
from flsplit.split.side import SideState
from flsplit.transport.hub import ServerHub
from flsplit.transport.task import Task

CLIENTS, ROUNDS, WARM = 10, 50, 10
KEYS = [f"clients={CLIENTS}", "dataset.train_limit=200", "dataset.test_limit=20", "device=cpu", "engine=ray"]


def run(*, pairs: int) -> Iterator[Result]:
    """Milliseconds of an empty round, and of one in which models of both sides move."""
    for models, goal in ((False, 15.0), (True, None)):
        what = f"ms of an empty round of {CLIENTS} clients on Ray{', with models there and back' if models else ''}"
        yield measure(
            "latency", what, partial(milliseconds, models=models), pairs=pairs, goal=goal, at_least=False,
            note=f"vit_micro, median of {ROUNDS} rounds",
        )  # fmt: skip


def milliseconds(*, models: bool) -> float:
    """The median of one run."""
    prepared = prepare(compose(KEYS))
    seconds: list[float] = []

    def main(grid: Grid, hub: ServerHub) -> None:
        plan = prepared.plan.to_json()
        both = assembly_for(plan).initial()
        messenger = Messenger(grid, plan, hub.address, CLIENTS, timeout=None, idle=lambda: None)
        messenger.warm_up(prepared.workers)
        for number in range(1, WARM + ROUNDS + 1):
            began = time.perf_counter()
            hub.new_round()
            if models:
                there_and_back(number, hub, messenger, both)
            else:
                messenger.warm_up(CLIENTS)  # a message to each and its answer; there is nothing to warm up
            seconds.append(time.perf_counter() - began)

    flsplit.engine.run(prepared.plan, app, prepared.workers, main)
    return 1000 * statistics.median(seconds[WARM:])


def there_and_back(number: int, hub: ServerHub, messenger: Messenger, both: tuple[SideState, SideState]) -> None:
    """A round in which models move."""
    names = f"{number}/client", f"{number}/server"
    hub.put(dict(zip(names, both)))
    tasks = [Task(round=number, clients=(c,), client_model=names[0], server_model=names[1]) for c in range(CLIENTS)]
    for reports in messenger.run(tasks):
        assert not isinstance(reports, str), reports
        [report] = reports
        assert report.client_model is not None and report.server_model is not None
        assert len(hub.take([report.client_model, report.server_model])) == 2
