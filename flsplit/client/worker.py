"""Runs clients: what a Flower `train` message makes a client process do.

Each process keeps one `Worker`, whose modules, data and kernels are built once and serve many clients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

from flsplit.assembly import Assembly, assembly_for, use_threads
from flsplit.client.local_run import (
    LocalRun,
    batch_sizes,
    in_turns,
    jointly,
    local_loop,
    reason,
    stacked,
    stacked_loop,
)
from flsplit.ledger.prices import Tally
from flsplit.split.host import ServerHost
from flsplit.split.side import Side
from flsplit.split.stacked.host import StackedHost
from flsplit.split.stacked.stack import Stack
from flsplit.transport.hub import Hub
from flsplit.transport.link import Link
from flsplit.transport.task import Report, Task


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
        _ = self.assembly.pipeline, self.assembly.client_rows
        if self.assembly.config.engine.stack > 1:
            _ = self._stacks
            return
        self._need_sides(1)
        if self.assembly.plan.placement == "replica":
            _ = self.host

    def train(self, task: Task, hub: Hub) -> list[Report]:
        """Run the clients of `task`; a client that raises is reported as failed and does not stop the others."""
        self.warm_up()
        if task.server_model is None:
            link: Link = hub.host_link()
        elif task.turns == "stacked":
            return self._stacked(task, hub)
        else:
            link = self.host
            link.begin(hub.get(task.server_model), shared=False)
        cohorts = [(client,) for client in task.clients] if task.turns == "whole" else [task.clients]
        model, reports = task.client_model, []
        for cohort in cohorts:
            reports += self._run(task, hub, link, cohort, model)
            if task.relay:
                model = reports[-1].client_model or model
        return reports

    def _run(self, task: Task, hub: Hub, link: Link, clients: tuple[int, ...], model: str) -> list[Report]:
        """Run a cohort; what goes wrong at the host, or in a step of all, is every client's failure."""
        runs: list[LocalRun] = []
        try:
            if task.turns == "gradient":
                return self._share_a_model(task, hub, link, clients, runs)
            self._need_sides(len(clients))
            for client, side in zip(clients, self._sides):
                loop = local_loop(self.assembly, task, client, side)
                runs.append(LocalRun(self.assembly, hub, link, task, client, side, model, loop))
            if task.turns == "joint":
                jointly(runs, link, None)
            else:
                in_turns(runs, link)
            return [run.finish() for run in runs]
        except Exception as error:
            return self._all_failed(clients, runs, error)

    def _stacked(self, task: Task, hub: Hub) -> list[Report]:
        """Run the clients of `task` as one; what goes wrong is every client's failure."""
        assert task.server_model is not None
        runs: list[LocalRun] = []
        try:
            stack, host = self._stacks
            host.begin(hub.get(task.server_model))
            # Clients that take the same steps lie next to each other, so that they take them in one call.
            clients = sorted(task.clients, key=lambda client: batch_sizes(self.assembly, task, client), reverse=True)
            for lane, client in enumerate(clients):
                side = stack.lane(lane)
                runs.append(LocalRun(self.assembly, hub, host, task, client, side, task.client_model, None))
                if runs[-1].error is not None:
                    raise RuntimeError(f"client {client}: {runs[-1].error}")
            stacked(runs, host, stacked_loop(self.assembly, task, runs, stack))
            reports = {run.client: run.finish() for run in runs}
            return [reports[client] for client in task.clients]
        except Exception as error:
            return self._all_failed(task.clients, runs, error)

    @cached_property
    def _stacks(self) -> tuple[Stack, StackedHost]:
        """Lanes for as many clients as are stacked, client sides and server sides."""
        return self.assembly.stacks()

    def _share_a_model(
        self, task: Task, hub: Hub, link: Link, clients: tuple[int, ...], runs: list[LocalRun]
    ) -> list[Report]:
        """All clients of the cohort train one client-side model; it is handed in as that of the first."""
        side = self._sides[0]
        side.load(hub.get(task.client_model))
        for client in clients:
            loop = local_loop(self.assembly, task, client, side)
            runs.append(LocalRun(self.assembly, hub, link, task, client, side, task.client_model, loop))
        jointly(runs, link, side)
        reports = [run.finish() for run in runs]
        key = f"{task.client_model}/{clients[0]}"
        hub.put({key: side.state(moments=task.keep_moments)})
        return [report if report.error else replace(report, client_model=key) for report in reports]

    def _all_failed(self, clients: Iterable[int], runs: Iterable[LocalRun], error: Exception) -> list[Report]:
        spent, why = {run.client: run.tally for run in runs}, reason(error, self.assembly)
        return [Report(client=c, tally=spent.get(c, Tally()), error=why) for c in clients]

    def _need_sides(self, count: int) -> None:
        while len(self._sides) < count:
            self._sides.append(self.assembly.client_side(trained=True))


_workers: dict[str, Worker] = {}


def worker_for(plan: str) -> Worker:
    """This process's worker for a plan (part of the per-process cache)."""
    if plan not in _workers:
        _workers.clear()
        _workers[plan] = Worker(assembly_for(plan))
    return _workers[plan]
