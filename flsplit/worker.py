"""Runs clients: what a Flower `train` message makes a client process do.

Each process keeps one `Worker`, whose modules, data and kernels are built once and serve many clients.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np
import torch

from flsplit.assembly import Assembly, assembly_for, use_threads
from flsplit.hub import Hub
from flsplit.ledger import Tally
from flsplit.split.host import ServerHost
from flsplit.split.link import Link
from flsplit.split.messages import Uplink
from flsplit.split.side import Side
from flsplit.split.trainer import LocalPass, local_pass


@dataclass(frozen=True, kw_only=True)
class Task:
    """A `train` message: which clients its receiver runs in a round, how, and where their models are.

    Attributes:
        round: from 1.
        clients: who is run: one, or a cohort.
        lockstep: whether a cohort takes a batch of each client in turn, rather than one client after another.
        client_model: key of the client-side model at the hub.
        server_model: key of the server-side model to step a replica of (placement `replica`), or None: the
            central host has it.
        moments: files with the optimizer moments of those clients that have any, by client.
        moments_out: where to leave them, with `{client}` in it, or None: they are not kept.
        keep_moments: whether a replica's moments return with it.
        limits: bits that each client may still send; None without a budget.
    """

    round: int
    clients: tuple[int, ...]
    lockstep: bool = False
    client_model: str
    server_model: str | None
    moments: dict[int, str] = field(default_factory=dict)
    moments_out: str | None = None
    keep_moments: bool = True
    limits: dict[int, int] | None = None

    def to_json(self) -> str:
        """Text from which `from_json` makes the same task."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Task:
        """The inverse of `to_json`."""
        values = json.loads(text)
        values["clients"] = tuple(values["clients"])
        values["moments"] = {int(client): path for client, path in values["moments"].items()}
        if values["limits"] is not None:
            values["limits"] = {int(client): bits for client, bits in values["limits"].items()}
        return Task(**values)


@dataclass(frozen=True, kw_only=True)
class Report:
    """How one client's round went.

    Attributes:
        client: who.
        tally: steps taken and bits sent.
        client_model: key of its model at the hub; None if it failed.
        server_model: key of its replica of the server-side model, if it has one.
        moments: file with its optimizer moments, if they are kept.
        error: why it failed, in one line; None if it did not.
    """

    client: int
    tally: Tally
    client_model: str | None = None
    server_model: str | None = None
    moments: str | None = None
    error: str | None = None


class Run:
    """One client's round in progress: its side, its generator of uplinks, and the account of what it sent."""

    def __init__(self, assembly: Assembly, hub: Hub, link: Link, task: Task, client: int, side: Side) -> None:
        self.client, self.side = client, side
        self._hub, self._link, self._task, self._prices = hub, link, task, assembly.prices
        self.tally = Tally()
        side.load(hub.get(task.client_model))
        if client in task.moments:
            side.load_moments(torch.from_numpy(np.load(task.moments[client], mmap_mode="c")))
        link.open(client)
        limit = None if task.limits is None else task.limits[client]
        self._loop = _start(assembly, task.round, client, side, limit)
        self._uplink: Uplink | None = next(self._loop, None)

    def advance(self) -> bool:
        """Take one training step; False when there is none left."""
        if self._uplink is None:
            return False
        downlink = self._link.step(self._uplink)
        self.tally += self._prices.step(self._uplink.shape)
        try:
            self._uplink = self._loop.send(downlink)
        except StopIteration:
            self._uplink = None
        self._hub.report(self.client, self.tally, self._link)
        return self._uplink is not None

    def finish(self) -> Report:
        """Hand in what the round left."""
        task, client = self._task, self.client
        closed = self._link.close(client, moments=task.keep_moments)
        self.tally.loss = closed.loss
        client_key, server_key = f"{task.round}/client/{client}", None
        state = self.side.state(moments=task.moments_out is not None)
        moments = None
        if task.moments_out is not None and state.moments is not None:
            moments = task.moments_out.format(client=client)
            np.save(moments, state.moments.numpy())
        self._hub.put(client_key, type(state)(state.weights))
        if closed.replica is not None:
            server_key = f"{task.round}/server/{client}"
            self._hub.put(server_key, closed.replica)
        return Report(
            client=client, tally=self.tally, client_model=client_key, server_model=server_key, moments=moments
        )


def _start(assembly: Assembly, round: int, client: int, side: Side, limit: int | None) -> LocalPass:
    config = assembly.config
    batches = assembly.pipeline.train_batches(
        assembly.dataset.train, assembly.client_rows[client], client=client, round=round,
        batch_size=config.batch_size, local_epochs=config.local_epochs, local_steps=config.local_steps,
        group_size=assembly.group_size,
    )  # fmt: skip
    steps = len(assembly.steps(client, limit))
    return local_pass(
        side, islice(batches, steps), client=client, classes=assembly.classes, stream=assembly.stream(client, round),
        autocast=assembly.autocast,
    )  # fmt: skip


def in_turns(runs: Iterable[Run]) -> None:
    """A batch of each client in turn, in their order, to the end of all; who has none left drops out."""
    active = list(runs)
    while active:
        active = [run for run in active if run.advance()]


class Worker:
    """A process that runs clients of one experiment."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self._sides: list[Side] = []

    @cached_property
    def host(self) -> ServerHost:
        """This process's own host, for server-side replicas."""
        return self.assembly.host()

    def warm_up(self) -> None:
        """Build what every round needs, so that the first one costs no more than the others."""
        use_threads(self.assembly.config)
        if not self._sides:
            self._sides.append(self.assembly.client_side())
        _ = self.assembly.pipeline, self.assembly.client_rows

    def train(self, task: Task, hub: Hub) -> list[Report]:
        """Run the clients of `task`; a client that raises is reported as failed and does not stop the others."""
        self.warm_up()
        if task.server_model is None:
            link: Link = hub.host_link()
        else:
            link = self.host
            link.begin(hub.get(task.server_model), shared=False)
        cohorts = [task.clients] if task.lockstep else [(client,) for client in task.clients]
        return [report for cohort in cohorts for report in self._run(task, hub, link, cohort)]

    def _run(self, task: Task, hub: Hub, link: Link, clients: tuple[int, ...]) -> list[Report]:
        while len(self._sides) < len(clients):
            self._sides.append(self.assembly.client_side())
        runs: list[Run] = []
        try:
            for client, side in zip(clients, self._sides):
                runs.append(Run(self.assembly, hub, link, task, client, side))
            in_turns(runs)
            return [run.finish() for run in runs]
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            spent = {run.client: run.tally for run in runs}
            return [Report(client=c, tally=spent.get(c, Tally()), error=reason) for c in clients]


_workers: dict[str, Worker] = {}


def worker_for(plan: str) -> Worker:
    """This process's worker for a plan (part of the per-process cache)."""
    if plan not in _workers:
        _workers.clear()
        _workers[plan] = Worker(assembly_for(plan))
    return _workers[plan]
