"""What a batch passes between client-side and server-side model: the compressor, and the stages behind it.

On its way up: `compress` and `uplink` at the client, `received` and `decompress` at the host. On its way down:
`downlink` at the host, `go_back` at the client. Each side has a `Stages` of its own, with its own halves. Where clients
are compressed as one, an `Exchange` comes before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from math import inf

import torch
from torch import Tensor, nn

from compressors import BatchShape, Compressor, Layout, Payload, Stage, Way, build, onto
from flsplit.split.exchange import Exchange
from flsplit.split.messages import Downlink, Uplink
from flsplit.split.passage import Draw, Key, Passage, Route, on_device

Draws = Callable[[Key], AbstractContextManager[object]]  # context in which a model draws the random numbers of a key
Seeded = Callable[..., AbstractContextManager[object]]  # the same of halves: of a side, client, round and step


class Stages:
    """Compressor and stages of one side.

    Args:
        compressor: of the side.
        behind: stages in the order in which a message leaves; those that act on nothing are left out.
        draw: the random stream of a key.
        seeded: context in which modules of halves draw from torch's global generators, as dropout does.
        answers: whether gradients come back at all; not where the client side trains nothing.

    Attributes:
        trained: the stages with parameters, which train with the side.
        passed: the stages behind them, which gradients pass by.
        exchange: what is told before a step, where clients are compressed as one; None elsewhere.
        route: layouts of a batch's messages, by its shape.

    Raises:
        ValueError: if a trained stage comes behind one that gradients pass by, or a stage is not as it must be.
    """

    def __init__(
        self, compressor: Compressor, behind: Sequence[Stage] = (), *, draw: Draw | None = None,
        seeded: Seeded = lambda *key: nullcontext(), answers: bool = True,
    ) -> None:  # fmt: skip
        self.compressor, self.answers = compressor, answers
        for stage in behind:
            if not set(stage.ways) <= {"up", "down"} or (stage.coherence is not None and stage.coherence < 1):
                raise ValueError(
                    f"{stage.name}: ways are up and down, and coherence is None or at least 1 step, got "
                    f"{stage.ways} and {stage.coherence}"
                )
            halves = nn.ModuleList(halves_of(stage))
            if not stage.trained and any(parameter.requires_grad for parameter in halves.parameters()):
                raise ValueError(
                    f"{stage.name} has parameters that gradients pass by: it must say trained = True, or keep them "
                    "without a gradient (requires_grad_(False))"
                )
        acting = [stage for stage in behind if stage.ways]
        self.trained = [stage for stage in acting if stage.trained]
        self.passed = [stage for stage in acting if not stage.trained]
        if acting != [*self.trained, *self.passed]:
            raise ValueError(
                f"{self.trained[-1].name} has parameters to train, so it must come before {self.passed[0].name}, "
                "which gradients pass by"
            )
        self._draw, self._seeded, cohort = draw, seeded, compressor.cohort
        self._within, self._beyond = Passage(self.trained, draw), Passage(self.passed, draw)
        self.exchange = None if cohort is None else Exchange(cohort, self.passed, draw)
        self._others: dict[int, tuple[Stages, Stages]] = {}  # by who was asked for, which is kept with what was made
        self.route = lru_cache(maxsize=None)(self._route)

    def halves(self, side: str) -> list[nn.Module]:
        """What is trained on a side (`client` or `server`): the compressor's half and those of trained stages."""
        found = [getattr(part, f"{side}_half") for part in (self.compressor, *self.trained)]
        return [half for half in found if half is not None]

    def state(self, side: str) -> list[nn.Module]:
        """What stages keep on a side: the buffers of these halves, whether the stage is trained or not."""
        found = [getattr(stage, f"{side}_half") for stage in self.behind]
        return [half for half in found if half is not None]

    @property
    def behind(self) -> list[Stage]:
        """The stages behind the compressor, in the order in which a message leaves."""
        return [*self.trained, *self.passed]

    def for_evaluation(self) -> Stages:
        """What models are evaluated through besides: stages and compressor that say `at_eval`."""
        compressor = self.compressor if self.compressor.at_eval else build("base")
        return Stages(
            compressor, [stage for stage in self.behind if stage.at_eval], draw=self._draw, seeded=self._seeded
        )

    def at(self, other: Stages) -> Stages:
        """The compressor of `other` and its stages, bound to its layouts, but for stages with halves: those are here.

        Args:
            other: the same at a client's own ratio.

        Raises:
            ValueError: if a half is that of one ratio alone.
        """
        if id(other) not in self._others:
            if halves_of(self.compressor):
                raise ValueError(
                    f"compressor={self.compressor.name} has parameters or buffers, which are those of one ratio, so "
                    "clients must not have ratios of their own (client_profile, budget.allocation=diversity)"
                )
            behind = [
                _held(mine, its) if halves_of(mine) else its
                for mine, its in zip(self.behind, other.behind, strict=True)
            ]
            made = Stages(other.compressor, behind, draw=self._draw, seeded=self._seeded, answers=self.answers)
            self._others[id(other)] = other, made
        return self._others[id(other)][1]

    def nominal(self, shape: BatchShape) -> tuple[float, float]:
        """Nominal ratios up and down: the compressor's (Table 1), times the factors of the stages."""
        ratios = self.compressor.nominal_ratios(shape)
        if not (isinstance(ratios, tuple) and len(ratios) == 2 and all(0 <= ratio < inf for ratio in ratios)):
            raise ValueError(
                f"{self.compressor.name}.nominal_ratios must give two numbers of at least 0, got {ratios!r}"
            )
        up, down = ratios
        for stage in self.behind:
            ways = ("up", "down") if stage.trained else stage.ways  # the gradients of what it sends are the downlink
            up *= _factor(stage, "up") if "up" in ways else 1.0
            down *= _factor(stage, "down") if "down" in ways else 1.0
        return up, down if self.answers else 0.0

    def bounds(self, shape: BatchShape) -> tuple[BatchShape, BatchShape]:
        """The batch at its least and its highest price, where that depends on its values."""
        return (shape, shape) if self.exchange is None else self.exchange.cohort.bounds(shape)

    def compress(
        self, z: Tensor, y: Tensor, s: Tensor | None, shape: BatchShape, *, generator: torch.Generator, key: Key,
        told: Payload | None = None,
    ) -> Payload:  # fmt: skip
        """Client: what gradients will come back for, with its graph.

        Args:
            z: activations (B, N, D).
            y: labels (B,).
            s: CLS attention (B, N), where the compressor needs it.
            shape: of the batch.
            generator: of the compressor.
            key: client, round and step.
            told: of the client's grouping, where it is compressed together with others.
        """
        if told is not None:
            assert self.exchange is not None
            return self.sent(self.exchange.cohort.compress(z, told), shape, key=key)
        with self._drawing("client", key):
            return self.sent(self.compressor.compress(z, y, s, generator=generator), shape, key=key)

    def sent(self, payload: Payload, shape: BatchShape, *, key: Key) -> Payload:
        """Client: what trained stages make of what the compressor's client half has sent, with its graph."""
        return self._within.send(payload, self.route(shape).up, way="up", key=key)

    def uplink(self, payload: Payload, shape: BatchShape, *, key: Key) -> Uplink:
        """Client: the message, detached; `payload` is from `compress`.

        Raises:
            ValueError: if it is not what its layout says.
        """
        route = self.route(shape)
        up = route.up[len(self.trained) :]
        sent = Payload(tuple(t.detach() for t in payload.floats), payload.integers, payload.labels)
        with torch.no_grad():
            sent = _crossed(self._beyond.send(sent, up, way="up", key=key), up[-1])
        client, round, step = key
        return Uplink(client=client, shape=shape, payload=sent, round=round, step=step)

    def received(self, uplink: Uplink, device: torch.device) -> Payload:
        """Host: an uplink's payload on the device; its floats are new tensors, and those that are answered are leaves.

        So asking them for a gradient leaves the sender's alone.
        """
        route, payload = self.route(uplink.shape), on_device(uplink.payload, device)
        with torch.no_grad():
            up = route.up[len(self.trained) :]
            payload = self._beyond.receive(payload, up, way="up", key=_key(uplink))
        for t, answered in zip(payload.floats, route.answered, strict=True):
            t.requires_grad_(answered)
        return payload

    def decompress(self, payload: Payload, uplink: Uplink) -> tuple[Tensor, Tensor]:
        """Host: activations and targets that the server-side model is trained on; see `Compressor.decompress`."""
        with self._drawing("server", _key(uplink)):
            return self.compressor.decompress(self._received(payload, uplink), uplink.shape)

    def compressed(self, payload: Payload, uplink: Uplink) -> Payload:
        """Host: what the compressor's client half has sent; `payload` is from `received`."""
        with self._drawing("server", _key(uplink)):
            return self._received(payload, uplink)

    def _received(self, payload: Payload, uplink: Uplink) -> Payload:
        arrived = replace(payload, lost=None)  # gradients of what is lost end at the stages that they pass by
        return self._within.receive(arrived, self.route(uplink.shape).up, way="up", key=_key(uplink))

    def _drawing(self, side: str, key: Key) -> AbstractContextManager[object]:
        return self._seeded(side, *key) if self.halves(side) else nullcontext()

    def hold_to_graph(self, payload: Payload) -> None:
        """Host: refuse what no gradient has come for, after the backward pass; `payload` is from `received`.

        Raises:
            ValueError: if the loss depends on none of its floats.
        """
        answered = [t for t in payload.floats if t.requires_grad]
        if answered and all(t.grad is None for t in answered):
            raise ValueError(
                f"the loss depends on nothing that has been sent: {self.compressor.name}'s decompress, or a stage's "
                "receive, must keep the graph of the floats that it is given"
            )

    def downlink(self, uplink: Uplink, payload: Payload) -> Downlink:
        """Host: the answer, after the backward pass; `payload` is from `received`."""
        route = self.route(uplink.shape)
        gradients = Payload(tuple(_gradients(payload, route.answered)))
        with torch.no_grad():
            sent = self._beyond.send(gradients, route.down, way="down", key=_key(uplink))
            sent = _crossed(sent, route.down[-1])
        return Downlink(client=uplink.client, shape=uplink.shape, payload=sent)

    def answered(self, payload: Payload, uplink: Uplink, downlink: Downlink) -> Iterator[tuple[Tensor, Tensor]]:
        """Client: each float of `payload`, from `compress`, that has a gradient, and that gradient."""
        route = self.route(uplink.shape)
        with torch.no_grad():
            arrived = self._beyond.receive(downlink.payload, route.down, way="down", key=_key(uplink))
        floats = [t for t, answered in zip(payload.floats, route.answered, strict=True) if answered]
        return ((t, onto(g, t.device).to(t.dtype)) for t, g in zip(floats, arrived.floats, strict=True))

    def resent(self, shape: BatchShape, *, key: Key) -> tuple[int, int]:
        """Bits of a step that stages send again beyond its price, up and down; 0 but for a link that loses packets."""
        route = self.route(shape)
        up = self._beyond.resent(route.up[len(self.trained) :], way="up", key=key)
        return up, self._beyond.resent(route.down, way="down", key=key)

    def _layout(self, shape: BatchShape) -> Layout:
        """Of what the compressor's client half sends."""
        if shape.groups is None:
            found = self.compressor.layout(shape)
            if not isinstance(found, Layout):
                raise ValueError(f"{self.compressor.name}.layout must give a Layout, got {found!r}")
            return found
        assert self.exchange is not None
        return self.exchange.cohort.layout(shape)

    def _route(self, shape: BatchShape) -> Route:
        up = self._within.layouts(self._layout(shape), "up")
        leaves = up.pop()
        answered = tuple(self.answers and field.back > 0 for field in leaves.floats)
        down = self._beyond.layouts(leaves.gradients() if self.answers else Layout(()), "down")
        return Route((*up, *self._beyond.layouts(leaves, "up")), tuple(down), answered)


def halves_of(part: Compressor | Stage) -> list[nn.Module]:
    """The client half and the server half of a compressor or stage, as far as it has them."""
    return [half for half in (part.client_half, part.server_half) if half is not None]


def undrawn(key: Key) -> AbstractContextManager[object]:
    """The context of a model that draws nothing."""
    return nullcontext()


def go_back(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Client: go backward from what was sent with the gradients that have come for it."""
    if pairs:
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])


def _gradients(payload: Payload, answered: Sequence[bool]) -> Iterator[Tensor]:
    """Of each float that is answered; 0 where the value was lost, which has changed nothing."""
    gone = [None] * len(payload.floats) if payload.lost is None else payload.lost.floats
    for t, lost, back in zip(payload.floats, gone, answered, strict=True):
        if back:
            gradient = torch.zeros_like(t) if t.grad is None else t.grad
            yield gradient if lost is None else gradient.masked_fill(lost, 0)


def _held(mine: Stage, its: Stage) -> Stage:
    """`mine`, whose halves serve clients of another ratio too."""
    shapes = [
        [
            (name, tuple(value.shape))
            for half in halves_of(stage)
            for name, value in (*half.named_parameters(), *half.named_buffers())
        ]
        for stage in (mine, its)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{mine.name} has parameters or buffers of other shapes at each ratio, so clients must not have ratios of "
            "their own (client_profile, budget.allocation=diversity)"
        )
    return mine


def _factor(stage: Stage, way: Way) -> float:
    factor = stage.nominal(way)
    if not (isinstance(factor, int | float) and 0 <= factor < inf):
        raise ValueError(f"{stage.name}.nominal must give a number of at least 0, got {factor!r}")
    return factor


def _crossed(payload: Payload, layout: Layout) -> Payload:
    """What arrives of a message: floats of 16 bits are rounded to half precision, those of none are zeros.

    Raises:
        ValueError: if the payload is not what its layout says.
    """
    layout.check(payload)
    if all(field.bits == 32 for field in layout.floats):
        return payload
    floats = tuple(_as_sent(t, field.bits) for t, field in zip(payload.floats, layout.floats))
    return Payload(floats, payload.integers, payload.labels)


def _as_sent(values: Tensor, bits: int) -> Tensor:
    if bits == 32:
        return values
    return values.half().float() if bits == 16 else values.new_zeros(()).expand(values.shape)


def _key(message: Uplink) -> Key:
    return message.client, message.round, message.step
