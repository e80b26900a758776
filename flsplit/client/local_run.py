"""One client's round in progress, and the ways to drive one or several of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from flsplit.assembly import Assembly
from flsplit.errors import explained
from flsplit.ledger.prices import Tally
from flsplit.split.messages import Downlink, Uplink
from flsplit.split.side import Side, SideState
from flsplit.split.stacked.host import StackedHost
from flsplit.split.stacked.stack import Lane, Stack
from flsplit.split.stacked.trainer import Member, StackedPass, stacked_pass
from flsplit.split.trainer import LocalPass, local_pass
from flsplit.transport import vectors
from flsplit.transport.hub import Hub
from flsplit.transport.link import Host, Link
from flsplit.transport.task import Report, Task


class LocalRun:
    """A client's side, its generator of uplinks, and the account of what it sent.

    Args:
        assembly: of the experiment.
        hub: where models are, and progress is told.
        host: where the client's round begins and ends, or a link to it.
        task: of the round.
        client: who.
        side: the client side to train, or the lane of a stack; taken as it is where the task's clients share one
            (`gradient`).
        model: key of the client-side model to start from.
        loop: the client's half of its steps; None where a driver takes the steps of several clients as one.

    Attributes:
        uplink: what it sends next; None when it has taken all its steps, or has failed.
        tally: of the steps taken.
        error: why it failed, in one line; None if it did not.
    """

    def __init__(
        self,
        assembly: Assembly,
        hub: Hub,
        host: Host,
        task: Task,
        client: int,
        side: Side | Lane,
        model: str,
        loop: LocalPass | None,
    ) -> None:
        self.client, self.side, self.tally = client, side, Tally()
        self.uplink: Uplink | None = None
        self.error: str | None = None
        self._hub, self._host, self._task, self._assembly = hub, host, task, assembly
        self._loop = loop
        self._attempt(partial(self._begin, model))

    def receive(self, downlink: Downlink) -> None:
        """Go backward with the answer to `uplink`, and on to the next one (with `gradient`, only after `proceed`)."""
        assert self.uplink is not None
        self.count(self.uplink)
        if self._task.turns == "gradient":
            self._send(downlink)  # its gradient is in the sum, wholly or not at all: a fault here is everybody's
        else:
            self._attempt(partial(self._send, downlink))

    def count(self, uplink: Uplink) -> None:
        """Enter a step into the account, and tell how far the client is."""
        self.tally += self._assembly.price(self.client, uplink.shape)
        self._hub.report(self.client, self.tally, self._host)

    def proceed(self) -> None:
        """Go on to the next uplink, after the update of the client-side model that all share."""
        self._attempt(partial(self._send, None))

    def _begin(self, model: str) -> None:
        task, client, side = self._task, self.client, self.side
        if task.turns != "gradient":
            state = SideState(vectors.read(task.models[client])) if client in task.models else self._hub.get(model)
            if client in task.moments:
                state = replace(state, moments=vectors.read(task.moments[client]))
            side.load(state)
            self._make_room(state.weights.numel())
            if task.models_out is None and not task.relay:  # it will be averaged
                side.anchor()
        self._host.open(client)
        if self._loop is not None:
            self.uplink = next(self._loop, None)

    def _make_room(self, floats: int) -> None:
        """See that by the end of the round the files are there that it leaves."""
        for path, size in ((self._task.moments_out, 2 * floats + 1), (self._task.models_out, floats)):
            if path is not None:
                vectors.make_room(path.format(client=self.client), size)

    def _send(self, value: Downlink | None) -> None:
        assert self._loop is not None
        try:
            self.uplink = self._loop.send(value)
        except StopIteration:
            self.uplink = None

    def _attempt(self, action: Callable[[], None]) -> None:
        """Let the client work; one that raises has failed and drops out, which is no fault of the others."""
        try:
            action()
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Drop out of the round."""
        self.uplink, self.error = None, reason(error, self._assembly)

    def finish(self) -> Report:
        """Hand in what the round left."""
        task, client = self._task, self.client
        if self.error is not None:
            return Report(client=client, tally=self.tally, error=self.error)
        closed = self._host.close(client, moments=task.keep_moments)
        self.tally.loss = closed.loss
        state = self.side.state(moments=task.moments_out is not None)
        client_key = server_key = moments = model = None
        models: dict[str, SideState] = {}
        if task.moments_out is not None and state.moments is not None:
            moments = task.moments_out.format(client=client)
            vectors.write(moments, state.moments)
        if task.models_out is not None:
            model = task.models_out.format(client=client)
            vectors.write(model, state.weights)
        elif task.turns != "gradient":
            client_key = f"{task.client_model}/{client}"
            models[client_key] = SideState(state.weights)
        if closed.replica is not None:
            server_key = f"{task.client_model}/{client}/server"
            models[server_key] = closed.replica
        if models:
            self._hub.put(models)
        return Report(
            client=client, tally=self.tally, client_model=client_key, server_model=server_key, moments=moments,
            model=model,
        )  # fmt: skip


def in_turns(runs: Iterable[LocalRun], link: Link) -> None:
    """A batch of each client in turn, in their order, to the end of all; who has none left drops out."""
    active = list(runs)
    while active := [run for run in active if run.uplink is not None]:
        for run in active:
            assert run.uplink is not None
            run.receive(link.step(run.uplink))


def jointly(runs: Iterable[LocalRun], link: Link, shared: Side | None) -> None:
    """A batch of all clients at a time, as one update of the server-side model; who has none left drops out.

    Args:
        runs: the clients, in the order in which their activations are concatenated.
        link: to the host.
        shared: the client side of all, whose gradients add up and which is stepped once; None if each has its own.
    """
    active = list(runs)
    while active := [run for run in active if run.uplink is not None]:
        uplinks: Sequence[Uplink] = [run.uplink for run in active if run.uplink is not None]
        for run, downlink in zip(active, link.step_jointly(uplinks), strict=True):
            run.receive(downlink)
        if shared is not None:
            shared.step()
            for run in active:
                run.proceed()


def stacked(runs: Iterable[LocalRun], host: StackedHost, together: StackedPass) -> None:
    """A batch of each client at a time, with all models stepped as one; who has none left drops out.

    Args:
        runs: the clients, without loops of their own.
        host: their server-side replicas.
        together: the clients' half of all steps.
    """
    by_client = {run.client: run for run in runs}
    try:
        uplinks = next(together)
        while True:
            downlinks = host.step_each(uplinks)
            for uplink in uplinks:
                by_client[uplink.client].count(uplink)
            uplinks = together.send(downlinks)
    except StopIteration:
        return


def reason(error: Exception, assembly: Assembly) -> str:
    """Why a client failed, in one line; the traceback is added to the run's `error.log`."""
    return explained(error, Path(assembly.plan.clients).parents[1])


def local_loop(assembly: Assembly, task: Task, client: int, side: Side) -> LocalPass:
    """The client's half of the steps that `task` asks of it."""
    steps = len(batch_sizes(assembly, task, client))
    return local_pass(
        side, assembly.batches(client, task.round, steps), client=client, classes=assembly.classes,
        stream=assembly.stream(client, task.round), autocast=assembly.autocast, shared=task.turns == "gradient",
        compressor=assembly.compressor_of(client),
    )  # fmt: skip


def stacked_loop(assembly: Assembly, task: Task, runs: Iterable[LocalRun], stack: Stack) -> StackedPass:
    """The clients' half of the steps that `task` asks of `runs`, whose lanes are in this order."""
    members = [
        Member(
            client=run.client,
            batches=assembly.batches(run.client, task.round, len(batch_sizes(assembly, task, run.client))),
            stream=assembly.stream(run.client, task.round),
            fail=run.fail,
            compressor=assembly.compressor_of(run.client),
        )
        for run in runs
    ]
    return stacked_pass(stack, members, classes=assembly.classes, autocast=assembly.autocast)


def batch_sizes(assembly: Assembly, task: Task, client: int) -> list[int]:
    """Samples in each step that `task` asks of `client`."""
    limit = None if task.limits is None else task.limits[client]
    return [step.samples for step in assembly.steps(client, limit)]
