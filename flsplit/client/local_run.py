"""One client's round in progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from compressors import BatchShape, Layout, Payload
from flsplit.assembly import Assembly, Costs
from flsplit.client.faults import ClientFailed, Diverged, Faults, drawn
from flsplit.errors import explained, is_fatal, no_exit
from flsplit.ledger.prices import Tally
from flsplit.split.messages import Downlink, Grouping, Proposal, Uplink
from flsplit.split.side import Side, SideState, is_finite
from flsplit.split.stacked.host import StackedHost
from flsplit.split.stacked.stack import Lane
from flsplit.split.trainer import LocalPass, local_pass
from flsplit.transport import vectors
from flsplit.transport.hub import Hub
from flsplit.transport.link import Link
from flsplit.transport.task import Report, Sent, Task


@dataclass(frozen=True)
class Round:
    """What the clients of a task have in common.

    Attributes:
        assembly: of the experiment.
        costs: of the experiment.
        hub: where models are, and progress is told.
        link: to the host, where the clients' rounds begin and end.
        task: of the round.
    """

    assembly: Assembly
    costs: Costs
    hub: Hub
    link: Link | StackedHost
    task: Task

    def sizes(self, client: int) -> list[int]:
        """Samples in each step that the task asks of `client`."""
        limit = None if self.task.limits is None else self.task.limits[client]
        sizes = [step.samples for step in self.costs.steps(client, limit)]
        return sizes if self.task.most is None else sizes[: self.task.most.get(client)]

    def loop(self, client: int, side: Side, *, shared: bool = False) -> LocalPass:
        """The half of `client` of these steps, on a side; see `local_pass`."""
        assembly, number = self.assembly, self.task.round
        return local_pass(
            side, assembly.batches(client, number, len(self.sizes(client))), client=client, round=number,
            classes=assembly.classes, stages=assembly.stages_of(client, side.stages),
            stream=assembly.stream(client, number), autocast=assembly.autocast,
            draws=assembly.draws("client"), shared=shared,
        )  # fmt: skip

    def faults(self, client: int) -> Faults:
        """What befalls `client` on purpose."""
        config, task = self.assembly.config, self.task
        return drawn(
            config.faults, config.seed, client=client, round=task.round, attempt=task.attempt,
            steps=len(self.sizes(client)) if config.faults.any else 0,
        )  # fmt: skip

    def reason(self, error: BaseException) -> str:
        """Why a client failed, in one line; the traceback of a fault is added to the run's `error.log`."""
        if isinstance(error, ClientFailed):
            return str(error)
        return explained(error, Path(self.assembly.plan.clients).parents[1])


class LocalRun:
    """A client's side, its generator of messages, and the account of what it sent.

    Args:
        of: the round that it is part of.
        client: who.
        side: the client side to train, or the lane of a stack.
        model: key of the client-side model to start from.
        loop: the client's half of its steps; None where a driver takes the steps of several clients as one.

    Attributes:
        message: what it sends next; None when it has taken all its steps, or has failed.
        tally: of the steps taken.
        sent: bits of each of them, and of one begun.
        error: why it failed, in one line; None if it did not.
    """

    def __init__(self, of: Round, client: int, side: Side | Lane, model: str, loop: LocalPass | None) -> None:
        self.client, self.side, self.tally = client, side, Tally()
        self.sent: list[Sent] = []
        self.message: Proposal | Uplink | None = None
        self.error: str | None = None
        self._fatal = self._diverged = False
        self._of, self._task, self._loop = of, of.task, loop
        self._faults = of.faults(client)
        self._attempt(partial(self._begin, model))

    def agree(self, grouping: Grouping) -> None:
        """Compress as the answer to a proposal says, and on to the uplink."""
        assert isinstance(self.message, Proposal)
        price = self._of.costs.prices(self.client).exchange(grouping.shape)
        up, down = self._enter(price, grouping.shape, self.message)
        self.sent.append(Sent(proposal=up, grouping=down))
        self._attempt(partial(self._send, grouping))

    def receive(self, downlink: Downlink) -> None:
        """Go backward with the answer to an uplink, and on to the next message."""
        assert isinstance(self.message, Uplink)
        self.count(self.message)
        self._attempt(partial(self._send, downlink))

    def proceed(self) -> None:
        """Go on after a step of all; here, nothing has waited for it."""

    def count(self, uplink: Uplink, *, finished: bool = True) -> None:
        """Enter a step into the account, and tell how far the client is.

        Args:
            uplink: of the step, which has been answered.
            finished: see `Sent`.
        """
        begun = self.sent.pop() if len(self.sent) > self.tally.steps else Sent()
        up, down = self._enter(self._of.costs.prices(self.client).step(uplink.shape), uplink.shape, uplink)
        self.sent.append(begun._replace(up=up, down=down, finished=finished))
        self._of.hub.report(self.client, self.tally, self._of.link)

    def _enter(self, price: Tally, shape: BatchShape, message: Proposal | Uplink) -> tuple[int, int]:
        """Enter a message and its answer into the account; the bits of both that crossed."""
        up, down = self._of.costs.resent(self.client, shape, message)
        self.tally += price
        self.tally.retransmitted_uplink_bits += up
        self.tally.retransmitted_downlink_bits += down
        return price.uplink_bits + up, price.downlink_bits + down

    def look(self, message: Proposal | Uplink) -> None:
        """Raises Diverged if what is about to be sent is not finite, as far as looking costs no wait."""
        if not _sound(message.payload):
            raise Diverged(f"its smashed activations are not finite after {self.tally.steps} steps")

    def fail(self, error: BaseException) -> None:
        """Drop out of the round."""
        self.message, self.error, self._fatal = None, self._of.reason(error), is_fatal(error)
        self._diverged = isinstance(error, Diverged)

    def finish(self) -> Report:
        """Hand in what the round left."""
        if self.error is not None:
            return self.report(error=self.error, fatal=self._fatal, diverged=self._diverged)
        closed = self._of.link.close(self.client, moments=self._task.keep_moments)
        if not math.isfinite(closed.loss):
            return self._spoilt("the loss")
        self.tally.loss = closed.loss
        if closed.replica is not None and not closed.replica.finite:
            return self._spoilt("its replica of the server-side model")
        return self._hand_in(closed.replica)

    def _spoilt(self, what: str) -> Report:
        return self.report(error=f"{what} is not finite after {self.tally.steps} steps", diverged=True)

    def report(self, **more: Any) -> Report:
        """How the round went, with what it has cost so far."""
        return Report(client=self.client, tally=self.tally, sent=tuple(self.sent), **more)

    def _begin(self, model: str) -> None:
        self._faults.begin()
        self._load(model)
        self._of.link.open(self.client)
        if self._loop is not None:
            self._go_on(next(self._loop, None))

    def _go_on(self, message: Proposal | Uplink | None) -> None:
        """Have a message to send, unless it is spoilt. Elsewhere than on a CPU looking would cost a wait in each step.

        There, a spoilt client is found when its round ends. Faults befall uplinks alone.
        """
        if message is not None:
            self.look(message)
        if isinstance(message, Uplink):
            message = self._faults.on_way(message, partial(self._layout, message))
        elif self._spent_up:
            message = None
        self.message = message

    @property
    def _spent_up(self) -> bool:
        """Whether the client may take no further step, of those whose price nobody knew beforehand."""
        budget, limits = self._of.costs.budget, self._task.limits
        return budget is not None and limits is not None and budget.spent(self.tally) >= limits[self.client]

    def _layout(self, uplink: Uplink) -> Layout:
        """Of an uplink's payload."""
        return self._of.costs.route(self.client, uplink.shape).up[-1]

    def _load(self, model: str) -> None:
        kept = {field: vectors.read(file) for field, file in self._task.kept.get(self.client, {}).items()}
        state = SideState(**kept) if "weights" in kept else replace(self._of.hub.get(model), **kept)
        self.side.load(state)
        for field, size in (("moments", 2 * self.side.trained + 1), ("weights", state.weights.numel())):
            if field in self._task.keep:  # so that the file is there by the end of the round
                vectors.make_room(self._task.file(self.client, field), size)
        if "weights" not in self._task.keep and not self._task.relay:  # it will be averaged
            self.side.anchor()

    def _send(self, value: Grouping | Downlink | None) -> None:
        assert self._loop is not None
        try:
            self._go_on(self._loop.send(value))
        except StopIteration:
            self.message = None

    def _attempt(self, action: Callable[[], None]) -> None:
        """Let the client work; one that raises has failed and drops out, which is no fault of the others."""
        try:
            with no_exit():
                action()
        except Exception as error:
            self.fail(error)

    def _hand_in(self, replica: SideState | None) -> Report:
        task, client, kept, left = self._task, self.client, dict[str, str](), dict[str, SideState]()
        state = self.side.state(moments="moments" in task.keep)
        if not state.finite:
            return self._spoilt("its client-side model")
        for field in task.keep:
            if (values := getattr(state, field)) is not None:
                kept[field] = vectors.write(task.file(client, field), values)
        client_key = server_key = None
        if "weights" not in task.keep:
            client_key = f"{task.client_model}/{client}"
            left[client_key] = SideState(state.weights)
        if replica is not None:
            server_key = f"{task.client_model}/{client}/server"
            left[server_key] = replica
        if left:
            self._of.hub.put(left)
        return self.report(client_model=client_key, server_model=server_key, kept=kept)


def _sound(payload: Payload) -> bool:
    """Whether all floats are finite, as far as looking costs no wait: on a CPU."""
    return all(is_finite(t) for t in payload.floats if t.device.type == "cpu")


class SharedRun(LocalRun):
    """The run of a client whose side is that of all clients, who step it together: whoever drives them loads it.

    Its gradient is in the sum, wholly or not at all: a fault on the way back is everybody's.
    """

    def receive(self, downlink: Downlink) -> None:
        """See `LocalRun`; the next uplink comes only after `proceed`. A spoilt gradient is left out of the sum."""
        assert isinstance(self.message, Uplink)
        sound = _sound(downlink.payload)
        self.count(self.message, finished=sound)
        if sound:
            self._send(downlink)
        else:
            self.fail(Diverged(f"its gradients are not finite after {self.tally.steps} steps"))

    def proceed(self) -> None:
        """Go on to the next uplink, after the update of the side that all share."""
        if self.error is None:
            self._attempt(partial(self._send, None))

    def _load(self, model: str) -> None:
        """The side is loaded."""

    def _hand_in(self, replica: SideState | None) -> Report:
        return self.report()
