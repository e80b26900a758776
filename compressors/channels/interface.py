"""What channels have in common: what they disturb, what they leave alone, and what leaving it alone costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, prod

import torch
from torch import Tensor

from compressors.interface import Floats, Integers, Layout, Payload
from compressors.lost import Lost
from compressors.options import fraction
from compressors.stage import Stage, Way


class Channel(Stage):
    """Disturbs a message's values on their way; what they cannot be read without crosses protected, at a price.

    Values are floats (of 16 or 32 bits) and a quantiser's codes. Labels, indices, clusters, ranges and scales are
    protected: they are sent with an error-correcting code of rate `code_rate` and arrive as they were. The code's
    further bits are a field of the message, so they are on the wire and in the price; the code itself is not simulated.

    Args:
        up: whether activations are disturbed.
        down: whether their gradients are.
        code_rate: bits of what is protected over bits that are sent for it, in (0, 1].
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for a rate outside (0, 1].
    """

    guards = True
    protect: bool = True

    def __init__(self, *, up: bool = True, down: bool = True, code_rate: float = 0.5, at_eval: bool = False) -> None:
        self.code_rate = fraction("code_rate", code_rate, group="channel")
        self.ways = (*(("up",) if up else ()), *(("down",) if down else ()))  # type: ignore[assignment]
        self.at_eval = at_eval

    def fields(self, layout: Layout, way: Way) -> Layout:
        """The message and, where something is protected, its code's further bits."""
        further = self._further_bits(layout)
        return Layout(layout.floats, (*layout.integers, *further), layout.labels)

    def send(self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator, **_: object) -> Payload:
        """The message, and zeros in the place of its code's further bits."""
        return with_zeros(payload, self._further_bits(layout))

    def _received(self, payload: Payload, layout: Layout) -> Payload:
        """The fields that were sent, without those that have been added on the way."""
        floats, integers = len(layout.floats), len(layout.integers)
        lost = None if payload.lost is None else payload.lost.first(floats, integers)
        return Payload(payload.floats[:floats], payload.integers[:integers], payload.labels, lost)

    def _further_bits(self, layout: Layout) -> tuple[Integers, ...]:
        if not self.protect:
            return ()
        own = () if layout.labels is None else (layout.labels,)
        protected = sum(field.size for field in (*layout.floats, *layout.integers, *own) if field.protected)
        bits = ceil(protected * (1 / self.code_rate - 1) - 1e-9)
        return (Integers((bits,), 1),) if bits else ()


def with_zeros(payload: Payload, fields: Sequence[Integers]) -> Payload:
    """The payload and further fields of integers, all 0, which take no memory; on its device."""
    device = (*payload.floats, *payload.integers)[0].device
    zeros = [torch.zeros(1, dtype=torch.int64, device=device).expand(field.shape) for field in fields]
    return Payload(payload.floats, (*payload.integers, *zeros), payload.labels)


@dataclass(frozen=True)
class Span:
    """A field within the run of bits that a message's disturbed fields make, one behind the other.

    Attributes:
        field: of the message.
        at: its place among the message's floats or integers; None for the labels.
        start: its first bit.
        count: of its values.
    """

    field: Floats | Integers
    at: int | None
    start: int
    count: int

    @property
    def stop(self) -> int:
        """The bit behind its last."""
        return self.start + self.count * self.field.bits


def disturbed(layout: Layout, *, protect: bool) -> tuple[Span, ...]:
    """The fields that a channel disturbs, in the order in which they are packed: floats, labels, other integers.

    Args:
        layout: of the message.
        protect: whether what is `protected` is left out.
    """
    spans, start = list[Span](), 0
    labels = () if layout.labels is None else ((None, layout.labels),)
    for at, field in (*enumerate(layout.floats), *labels, *enumerate(layout.integers)):
        if field.bits and not (protect and field.protected):
            spans.append(Span(field, at, start, prod(field.shape)))
            start = spans[-1].stop
    return tuple(spans)


def changed(payload: Payload, spans: tuple[Span, ...], values: list[Tensor]) -> Payload:
    """The payload with other values in the fields of `spans`."""
    floats, integers, labels = list(payload.floats), list(payload.integers), payload.labels
    for span, new in zip(spans, values, strict=True):
        if span.at is None:
            labels = new
        elif isinstance(span.field, Floats):
            floats[span.at] = new
        else:
            integers[span.at] = new
    return Payload(tuple(floats), tuple(integers), labels, payload.lost)


def without(payload: Payload, spans: tuple[Span, ...], gone: list[Tensor], fill: str) -> Payload:
    """The payload, which says that values of its fields are lost, beside those that it has said are.

    Args:
        payload: with something in their place.
        spans: fields of which some are.
        gone: of each span which: bool, in its field's shape.
        fill: what is in their place, see `filled`.
    """
    floats: list[Tensor | None] = [None] * len(payload.floats)
    integers: list[Tensor | None] = [None] * len(payload.integers)
    for span, missing in zip(spans, gone, strict=True):
        if span.at is not None:
            (floats if isinstance(span.field, Floats) else integers)[span.at] = missing
    return replace(payload, lost=Lost(tuple(floats), tuple(integers), fill).and_also(payload.lost))


def values_of(payload: Payload, span: Span) -> Tensor:
    """A field's tensor, in its shape."""
    if span.at is None:
        assert payload.labels is not None
        return payload.labels
    return (payload.floats if isinstance(span.field, Floats) else payload.integers)[span.at].view(span.field.shape)


def decibels(option: str, value: float | list[float]) -> tuple[float, float]:
    """A number of decibels, or two between which it is drawn for each message, as the least and the largest.

    Raises:
        ValueError: if it is neither.
    """
    pair = list(value) if isinstance(value, list | tuple) else [value, value]
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and isfinite(x) for x in pair)
    if len(pair) != 2 or not numbers or pair[0] > pair[1]:
        raise ValueError(f"channel.{option} must be a number of decibels, or [least, largest], got {value}")
    if max(abs(x) for x in pair) > 200:
        raise ValueError(f"channel.{option} must be between -200 and 200 decibels, got {value}")
    return float(pair[0]), float(pair[1])


def drawn_ratio(bounds: tuple[float, float], generator: torch.Generator) -> float:
    """A ratio of powers, drawn evenly in decibels."""
    least, largest = bounds
    decibel = least if least == largest else least + (largest - least) * float(torch.rand((), generator=generator))
    return 10 ** (decibel / 10)
