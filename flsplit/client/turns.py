"""How the clients of a task take their turns. Each way is one object that runs a cohort in a client process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from flsplit.client.local_run import LocalRun, Round, SharedRun
from flsplit.client.worker import Worker
from flsplit.errors import is_fatal, no_exit
from flsplit.ledger.prices import Tally
from flsplit.split.host import ServerHost
from flsplit.split.messages import Proposal, Uplink
from flsplit.split.side import Side
from flsplit.split.stacked.host import StackedHost
from flsplit.split.stacked.trainer import Member, stacked_pass
from flsplit.split.stages import Stages
from flsplit.transport.hub import Hub
from flsplit.transport.link import Link
from flsplit.transport.task import Report, Task


class Turns(ABC):
    """A way to run a task's clients. A client that raises is reported as failed and does not stop the others."""

    def host(self, worker: Worker) -> ServerHost | StackedHost:
        """The process's own host, for replicas of the server-side model."""
        return worker.host

    def run(self, of: Round, worker: Worker) -> list[Report]:
        """Run the clients of a task; what goes wrong at the host, or in a step of all, is every client's failure.

        Returns:
            their reports, in the order of the task's clients.
        """
        return self._cohort(of, worker, of.task.clients, of.task.client_model)

    def _cohort(self, of: Round, worker: Worker, clients: Sequence[int], model: str) -> list[Report]:
        runs: list[LocalRun] = []
        try:
            with no_exit():
                return self._together(of, worker, clients, model, runs)
        except Exception as error:
            begun, why = {run.client: run for run in runs}, of.reason(error)
            fatal = is_fatal(error)
            return [
                begun[c].report(error=why, fatal=fatal) if c in begun
                else Report(client=c, tally=Tally(), error=why, fatal=fatal)
                for c in clients
            ]  # fmt: skip

    @abstractmethod
    def _together(
        self, of: Round, worker: Worker, clients: Sequence[int], model: str, runs: list[LocalRun]
    ) -> list[Report]:
        """Begin the runs of `clients` with a client-side model, add them to `runs`, and take them to their end."""


class OwnSides(Turns):
    """Each client has a side of its own."""

    def _together(
        self, of: Round, worker: Worker, clients: Sequence[int], model: str, runs: list[LocalRun]
    ) -> list[Report]:
        for client, side in zip(clients, worker.sides(len(clients))):
            runs.append(LocalRun(of, client, side, model, of.loop(client, side)))
        self._drive(runs, _link(of))
        return [run.finish() for run in runs]

    @abstractmethod
    def _drive(self, runs: Sequence[LocalRun], link: Link) -> None:
        """Take the steps of all."""


class InTurns(OwnSides):
    """`step`: a batch of each client in turn, in their order, to the end of all; who has none left drops out."""

    def _drive(self, runs: Sequence[LocalRun], link: Link) -> None:
        active = runs
        while active := [run for run in active if run.message is not None]:
            for run in active:
                assert isinstance(run.message, Uplink)
                run.receive(link.step(run.message))


class Whole(InTurns):
    """`whole`: one client to its end, then the next, perhaps with the client-side model of the one before it."""

    def run(self, of: Round, worker: Worker) -> list[Report]:
        """See `Turns`."""
        model, reports = of.task.client_model, list[Report]()
        for client in of.task.clients:
            reports += self._cohort(of, worker, (client,), model)
            if of.task.relay:
                model = reports[-1].client_model or model
        return reports


class Jointly(OwnSides):
    """`joint`: a batch of all clients at a time, as one update of the server-side model; who has none left drops out.

    Activations are concatenated in the order of the clients or, where these are compressed as one, merged with one
    another; then each step begins with what they agree upon.
    """

    def _drive(self, runs: Sequence[LocalRun], link: Link) -> None:
        active = runs
        while active := [run for run in active if run.message is not None]:
            if proposals := [run.message for run in active if isinstance(run.message, Proposal)]:
                for run, grouping in zip(active, link.plan(proposals), strict=True):
                    run.agree(grouping)
                continue
            uplinks = [run.message for run in active if isinstance(run.message, Uplink)]
            for run, downlink in zip(active, link.step_jointly(uplinks), strict=True):
                run.receive(downlink)
            self._update(active)
            for run in active:
                run.proceed()

    def _update(self, runs: Sequence[LocalRun]) -> None:
        """Client-side models are stepped by now."""


class SummedGradients(Jointly):
    """`gradient`: jointly, and one update of one client-side model with the sum of the clients' gradients.

    It is handed in as that of the first client.
    """

    def _together(
        self, of: Round, worker: Worker, clients: Sequence[int], model: str, runs: list[LocalRun]
    ) -> list[Report]:
        [side] = worker.sides(1)
        side.load(of.hub.get(model))
        side.brace()
        for client in clients:
            runs.append(SharedRun(of, client, side, model, of.loop(client, side, shared=True)))
        self._drive(runs, _link(of))
        reports = [run.finish() for run in runs]
        key = f"{of.task.client_model}/{clients[0]}"
        of.hub.put({key: side.state(moments=of.task.keep_moments)})
        return [report if report.error else replace(report, client_model=key) for report in reports]

    def _update(self, runs: Sequence[LocalRun]) -> None:
        side = runs[0].side
        assert isinstance(side, Side)
        side.step_if_finite()
        side.brace()


class Stacked(Turns):
    """`stacked`: a batch of each client at a time, every client with models of its own, computed as one."""

    def host(self, worker: Worker) -> StackedHost:
        """See `Turns`."""
        return worker.stacks[1]

    def _together(
        self, of: Round, worker: Worker, clients: Sequence[int], model: str, runs: list[LocalRun]
    ) -> list[Report]:
        stack, host = worker.stacks
        # Clients that take the same steps lie next to each other, so that they take them in one call.
        for lane, client in enumerate(sorted(clients, key=of.sizes, reverse=True)):
            runs.append(LocalRun(of, client, stack.lane(lane), model, None))
            if runs[-1].error is not None:
                raise RuntimeError(f"client {client}: {runs[-1].error}")
        by_client = {run.client: run for run in runs}
        together = stacked_pass(
            stack, [self._member(of, run, stack.stages) for run in runs], round=of.task.round,
            classes=of.assembly.classes, autocast=of.assembly.autocast,
        )  # fmt: skip
        try:
            uplinks = next(together)
            while True:
                downlinks = host.step_each(uplinks)
                for uplink in uplinks:
                    by_client[uplink.client].count(uplink)
                uplinks = together.send(downlinks)
        except StopIteration:
            reports = {run.client: run.finish() for run in runs}
        return [reports[client] for client in clients]

    def _member(self, of: Round, run: LocalRun, stages: Stages) -> Member:
        client, number = run.client, of.task.round
        return Member(
            client=client, batches=of.assembly.batches(client, number, len(of.sizes(client))), fail=run.fail,
            look=run.look, stream=of.assembly.stream(client, number), stages=of.assembly.stages_of(client, stages),
        )  # fmt: skip


TURNS: dict[str, Turns] = {
    "whole": Whole(), "step": InTurns(), "joint": Jointly(), "gradient": SummedGradients(), "stacked": Stacked(),
}  # fmt: skip


def _link(of: Round) -> Link:
    assert not isinstance(of.link, StackedHost)
    return of.link


def run_task(task: Task, worker: Worker, hub: Hub) -> list[Report]:
    """Do what a task asks of this process."""
    worker.warm_up()
    turns = TURNS[task.turns]
    link: Link | StackedHost = hub.host_link() if task.server_model is None else turns.host(worker)
    if task.server_model is not None:
        link.begin(hub.get(task.server_model), shared=False)
    return turns.run(Round(worker.assembly, worker.costs, hub, link, task), worker)
