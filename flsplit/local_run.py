"""One client's round in progress, and the ways to drive one or several of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from flsplit.assembly import Assembly
from flsplit.hub import Hub
from flsplit.ledger import Tally
from flsplit.split.link import Link
from flsplit.split.messages import Downlink, Uplink
from flsplit.split.side import Side, SideState
from flsplit.split.trainer import LocalPass, local_pass
from flsplit.task import Report, Task


class LocalRun:
    """A client's side, its generator of uplinks, and the account of what it sent.

    Args:
        assembly: of the experiment.
        hub: where models are, and progress is told.
        link: to the host.
        task: of the round.
        client: who.
        side: the client side to train; taken as it is where the task's clients share one (`gradient`).
        model: key of the client-side model to start from.

    Attributes:
        uplink: what it sends next; None when it has taken all its steps, or has failed.
        tally: of the steps taken.
        error: why it failed, in one line; None if it did not.
    """

    def __init__(
        self, assembly: Assembly, hub: Hub, link: Link, task: Task, client: int, side: Side, model: str
    ) -> None:
        self.client, self.side, self.tally = client, side, Tally()
        self.uplink: Uplink | None = None
        self.error: str | None = None
        self._hub, self._link, self._task, self._assembly = hub, link, task, assembly
        self._loop = _loop(assembly, task, client, side)
        self._attempt(partial(self._begin, model))

    def receive(self, downlink: Downlink) -> None:
        """Go backward with the answer to `uplink`, and on to the next one (with `gradient`, only after `proceed`)."""
        assert self.uplink is not None
        self.tally += self._assembly.price(self.client, self.uplink.shape)
        if self._task.turns == "gradient":
            self._send(downlink)  # its gradient is in the sum, wholly or not at all: a fault here is everybody's
        else:
            self._attempt(partial(self._send, downlink))
        self._hub.report(self.client, self.tally, self._link)

    def proceed(self) -> None:
        """Go on to the next uplink, after the update of the client-side model that all share."""
        self._attempt(partial(self._send, None))

    def _begin(self, model: str) -> None:
        task, client, side = self._task, self.client, self.side
        if task.turns != "gradient":
            state = SideState(_read(task.models[client])) if client in task.models else self._hub.get(model)
            if client in task.moments:
                state = replace(state, moments=_read(task.moments[client]))
            side.load(state)
            if task.models_out is None and not task.relay:  # it will be averaged
                side.anchor()
        self._link.open(client)
        self.uplink = next(self._loop, None)

    def _send(self, value: Downlink | None) -> None:
        try:
            self.uplink = self._loop.send(value)
        except StopIteration:
            self.uplink = None

    def _attempt(self, action: Callable[[], None]) -> None:
        """Let the client work; one that raises has failed and drops out, which is no fault of the others."""
        try:
            action()
        except Exception as error:
            self.uplink, self.error = None, reason(error)

    def finish(self) -> Report:
        """Hand in what the round left."""
        task, client = self._task, self.client
        if self.error is not None:
            return Report(client=client, tally=self.tally, error=self.error)
        closed = self._link.close(client, moments=task.keep_moments)
        self.tally.loss = closed.loss
        state = self.side.state(moments=task.moments_out is not None)
        client_key = server_key = moments = model = None
        models: dict[str, SideState] = {}
        if task.moments_out is not None and state.moments is not None:
            moments = task.moments_out.format(client=client)
            np.save(moments, state.moments.numpy())
        if task.models_out is not None:
            model = task.models_out.format(client=client)
            np.save(model, state.weights.numpy())
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


def reason(error: Exception) -> str:
    """Why a client failed, in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _read(path: str) -> torch.Tensor:
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _loop(assembly: Assembly, task: Task, client: int, side: Side) -> LocalPass:
    steps = len(assembly.steps(client, None if task.limits is None else task.limits[client]))
    return local_pass(
        side, assembly.batches(client, task.round, steps), client=client, classes=assembly.classes,
        stream=assembly.stream(client, task.round), autocast=assembly.autocast, shared=task.turns == "gradient",
        compressor=assembly.compressor_of(client),
    )  # fmt: skip
