"""From operations and bits to seconds and joules: how long a step takes, and how steps of several clients follow.

Seconds are simulated: they depend on shapes, devices and the seed alone, never on the machine that simulates. A step is
three parts: `before` (the client's forward pass, and the uplink), `server`, and `after` (the downlink, and the client's
backward pass). Where clients are compressed as one, the forward pass and the proposal are a part of their own, `ask`,
and `before` is the answer and the uplink. With `pipeline` a batch crosses in pieces, so that the longer of computing
and sending counts, not both; the first piece's part of the other is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flsplit.network.devices import Device, NetworkConfig
from flsplit.streams import numpy_stream


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one step asks of client, link and server.

    Attributes:
        forward: floating-point operations of the client before it sends.
        backward: and after it has received.
        server: and of the server between.
        up: bits that go up, what is sent again included.
        down: bits that come down.
        proposal: bits that go up before the client compresses.
        grouping: and that come down then.
        up_model: bits of gradients of the client-side model that go up in the step.
        down_model: and that come down.
    """

    forward: int
    backward: int
    server: int
    up: float
    down: float
    proposal: float = 0.0
    grouping: float = 0.0
    up_model: float = 0.0
    down_model: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Round:
    """A client's part of a round: its steps, and its models' moves.

    Attributes:
        client: who.
        steps: that it has taken, or would take.
        down: bits of models that come to it before.
        up: bits of models that it brings back.
    """

    client: int
    steps: Sequence[Work]
    down: int
    up: int


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Where a client's time and energy went in a round.

    Attributes:
        compute: seconds of computing.
        transfer: seconds of sending and receiving.
        waiting: seconds of the round beyond these: for the server, for other clients, for the end of the round.
        joules: of the client alone.
    """

    compute: float = 0.0
    transfer: float = 0.0
    waiting: float = 0.0
    joules: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            compute=self.compute + other.compute, transfer=self.transfer + other.transfer,
            waiting=self.waiting + other.waiting, joules=self.joules + other.joules,
        )  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """A client's part of a round in seconds; arrays have a number for each step."""

    down: float
    ask: np.ndarray
    before: np.ndarray
    server: np.ndarray
    after: np.ndarray
    gradient_up: np.ndarray
    gradient_down: np.ndarray
    up: float
    spent: Spent

    @property
    def alone(self) -> float:
        """Seconds from its beginning to its end, if it waits for nobody."""
        return self.down + float(self.steps.sum()) + self.up

    @property
    def steps(self) -> np.ndarray:
        """Seconds of each step, if it waits for nobody."""
        return self.ask + self.before + self.server + self.after + self.gradient_up + self.gradient_down


Schedule = Callable[[Sequence[Timed]], tuple[float, list[float]]]  # seconds in all, and until each client's end


class Clock:
    """Tells how long what clients do would take.

    Args:
        network: of the run.
        device_of: the device of a client.
        seed: of the run, for jitter.
    """

    def __init__(self, network: NetworkConfig, device_of: Callable[[int], Device], seed: int) -> None:
        self.network, self._device_of, self._seed = network, device_of, seed

    def timed(self, part: Round, number: int, attempt: int = 0) -> Timed:
        """A client's part of round `number` in seconds."""
        device, count = self._device_of(part.client), len(part.steps)
        # The models' two messages first, then those of each step: fewer steps change nothing about the others.
        late = device.jitter * numpy_stream(self._seed, "jitter", part.client, number, attempt).random((count + 1, 2))

        def column(name: str) -> np.ndarray:
            return np.array([getattr(step, name) for step in part.steps], float)

        forward, backward = column("forward") / device.flops, column("backward") / device.flops
        up, down = column("up") / device.uplink, column("down") / device.downlink
        up_late, down_late = (device.latency + late[1:, way] for way in (0, 1))
        asks, proposal, grouping = column("proposal") > 0, column("proposal"), column("grouping")
        proposal, grouping = proposal / device.uplink, grouping / device.downlink
        asked_late, told_late = self._late(device, "jitter of proposals", part, number, attempt)
        ask = np.where(asks, forward + (proposal + asked_late), 0.0)
        told, then = np.where(asks, grouping + told_late, 0.0), np.where(asks, 0.0, forward)
        asking = np.where(asks, proposal + asked_late + grouping + told_late, 0.0)
        down_late = np.where(down > 0, down_late, 0.0)
        up_late = np.where(up > 0, up_late, 0.0)
        if self.network.pipeline:
            before, after = np.maximum(then, up) + up_late, np.maximum(down, backward) + down_late
        else:
            before, after = then + (up + up_late), (down + down_late) + backward
        model_up, model_down = column("up_model") / device.uplink, column("down_model") / device.downlink
        moved_late = self._late(device, "jitter of gradients", part, number, attempt)
        gradient_up, gradient_down = (
            bits + np.where(bits > 0, late, 0.0) for bits, late in zip((model_up, model_down), moved_late)
        )
        first = part.down / device.downlink + (device.latency + late[0, 1] if part.down else 0.0)
        last = part.up / device.uplink + (device.latency + late[0, 0] if part.up else 0.0)
        sending = float((up + model_up + proposal).sum()) + part.up / device.uplink
        receiving = float((down + model_down + grouping).sum()) + part.down / device.downlink
        compute = float((forward + backward).sum())
        moving = gradient_up + gradient_down
        total = float((up + up_late + down + down_late + moving + asking).sum()) + first + last
        joules = device.compute_power_w * compute + device.send_power_w * sending + device.receive_power_w * receiving
        server = column("server") / (self.network.server_flops or np.inf)
        spent = Spent(compute=compute, transfer=total, joules=joules)
        return Timed(float(first), ask, told + before, server, after, gradient_up, gradient_down, float(last), spent)

    def _late(
        self, device: Device, stream: str, part: Round, number: int, attempt: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Latency and jitter of a message up and of one down in each step, drawn by themselves."""
        drawn = numpy_stream(self._seed, stream, part.client, number, attempt).random((len(part.steps), 2))
        return device.latency + device.jitter * drawn[:, 0], device.latency + device.jitter * drawn[:, 1]

    def affordable(self, part: Round, number: int, attempt: int = 0) -> int:
        """How many of a client's steps fit into a round of `round_deadline_s`, models' moves included."""
        assert self.network.round_deadline_s is not None
        timed = self.timed(part, number, attempt)
        ends = timed.down + np.cumsum(timed.steps) + timed.up
        return int((ends <= self.network.round_deadline_s).sum())

    def downloaded(self, part: Round, number: int, attempt: int = 0) -> int:
        """Bits of models that have come to a client in time to bring what goes `up` before a round is over.

        Steps are left out; the round is that of `round_deadline_s`.
        """
        assert self.network.round_deadline_s is not None
        device, timed = self._device_of(part.client), self.timed(part, number, attempt)
        late = timed.down - part.down / device.downlink + timed.up
        bits = (self.network.round_deadline_s - late) * device.downlink
        return min(part.down, max(0, int(round(bits, 3))))  # less is how differences of seconds round


def side_by_side(parts: Sequence[Timed]) -> tuple[float, list[float]]:
    """All at once; the server works for each as if it were alone. The round is as long as the slowest."""
    ends = [part.alone for part in parts]
    return max(ends, default=0.0), ends


def one_after_another(parts: Sequence[Timed]) -> tuple[float, list[float]]:
    """Each begins when the one before has brought its model back."""
    ends = np.cumsum([part.alone for part in parts]).tolist()
    return (ends[-1] if ends else 0.0), ends


def in_turns(parts: Sequence[Timed]) -> tuple[float, list[float]]:
    """All at once, at one server that takes their batches in turn, in their order, a batch of each at a time."""
    free, now = 0.0, [part.down for part in parts]
    for step in range(max((len(part.before) for part in parts), default=0)):
        for at, part in enumerate(parts):
            if step < len(part.before):
                free = max(free, now[at] + part.before[step]) + part.server[step]
                now[at] = free + part.after[step] + part.gradient_up[step] + part.gradient_down[step]
    ends = [end + part.up for end, part in zip(now, parts)]
    return max(ends, default=0.0), ends


def jointly(parts: Sequence[Timed]) -> tuple[float, list[float]]:
    """In lockstep: the server waits for the batches of all who have one, and answers them together; proposals likewise.

    Its work is the sum of theirs. Nobody goes on before all have had their answer, or the sum of the gradients of the
    client-side model that all of them have sent.
    """
    now = max((part.down for part in parts), default=0.0)
    for step in range(max((len(part.before) for part in parts), default=0)):
        there = [part for part in parts if step < len(part.before)]
        now += max(part.ask[step] for part in there)
        now += max(part.before[step] for part in there) + sum(part.server[step] for part in there)
        now += max(part.after[step] + part.gradient_up[step] for part in there)
        now += max(part.gradient_down[step] for part in there)
    ends = [now + part.up for part in parts]
    return max(ends, default=0.0), [float(end) for end in ends]


SCHEDULES: Mapping[str, Schedule] = {
    "side by side": side_by_side, "whole": one_after_another, "step": in_turns, "joint": jointly,
}  # fmt: skip
