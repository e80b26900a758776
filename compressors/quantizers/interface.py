"""What quantisers have in common: each field of floats becomes one of codes, and one of ranges where it needs them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from compressors.interface import BatchShape, Floats, Integers, Layout, Payload
from compressors.lost import Lost
from compressors.options import choice
from compressors.stage import Stage, Way

RANGES = ("tensor", "token", "channel")
_OVER = {"tensor": (0, 1), "token": (1,), "channel": (0,)}  # of a field as a matrix (rows, last dimension)


class Quantizer(Stage):
    """Codes of so many bits for values, one range (or scale) for each group of them.

    A field of floats is read as a matrix: what its last dimension holds (a token's D numbers; all that Top-K or SplitFC
    send of a sample) is a row. Fields of no bits, which only hold a place for a gradient, pass as they are. Ranges are
    fp32 and are paid for. What was not finite arrives as not finite.

    Args:
        up: whether activations are quantised.
        down: whether their gradients are.
        range: of which values the range is taken: `tensor` (of the message's field), `token` (of each row), `channel`
            (of each place of the last dimension, over all rows), or `none` where a quantiser does without.
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for a range that is none of these.
    """

    numbers: int = 1  # floats that a range takes

    def __init__(
        self, *, up: bool = True, down: bool = True, range: str = "tensor", at_eval: bool = False,
        ranges: tuple[str, ...] = RANGES,
    ) -> None:  # fmt: skip
        self.range = choice("range", range, ranges, group="quantizer")
        self.ways = (*(("up",) if up else ()), *(("down",) if down else ()))  # type: ignore[assignment]
        self.at_eval = at_eval

    @abstractmethod
    def bits(self, way: Way) -> int:
        """Of each code."""

    @abstractmethod
    def encode(
        self, values: Tensor, over: tuple[int, ...], *, way: Way, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Codes, and the numbers of each range.

        Args:
            values: (rows, width), fp32.
            over: dimensions that a range is taken over; none where there are no ranges.
            way: up or down.
            generator: of the message.

        Returns:
            codes (rows, width), int64, from 0 to below 2^bits; and `numbers` tensors with `over` kept as 1.
        """

    @abstractmethod
    def decode(self, codes: Tensor, ranges: tuple[Tensor, ...], *, way: Way) -> Tensor:
        """The values (rows, width), fp32, that codes and ranges stand for."""

    def bind(self, layout: Layout, shape: BatchShape, *, generator: torch.Generator) -> Quantizer:
        """See `Stage`.

        Raises:
            ValueError: if there is nothing to quantise, or its values have no channels.
        """
        values = [field for field in layout.floats if field.bits]
        if "up" in self.ways and not values:
            raise ValueError(
                f"quantizer={self.name} finds no numbers to quantise in what the compressor sends; quantizer.up must "
                "be false, or the quantizer none"
            )
        if self.range == "channel" and any(len(field.shape) < 3 for field in values):
            raise ValueError(
                "quantizer.range=channel needs tokens of a width, which this compressor does not send; it must be "
                "tensor or token"
            )
        return self

    def fields(self, layout: Layout, way: Way) -> Layout:
        """Ranges in the place of floats, and their codes behind the other integers."""
        floats = [self._ranges(field) if field.bits else field for field in layout.floats]
        codes = [Integers(f.shape, self.bits(way), protected=False) for f in layout.floats if f.bits]
        return Layout(tuple(f for f in floats if f is not None), (*layout.integers, *codes), layout.labels)

    def nominal(self, way: Way) -> float:
        """Bits of a code over 32; ranges are not in Table 1."""
        return self.bits(way) / 32

    def send(self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator) -> Payload:
        """Encode."""
        floats, codes = list[Tensor](), list[Tensor]()
        for field, values in zip(layout.floats, payload.floats, strict=True):
            if not field.bits:
                floats.append(values)
                continue
            matrix = values.reshape(-1, field.shape[-1])
            found, ranges = self.encode(matrix, self._over, way=way, generator=generator)
            codes.append(found.view(field.shape))
            if ranges:
                floats.append(torch.stack([number.flatten() for number in ranges], 1))
        return Payload(tuple(floats), (*payload.integers, *codes), payload.labels)

    def receive(self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator) -> Payload:
        """Decode."""
        others, floats = len(layout.integers), list[Tensor]()
        sent, codes = iter(payload.floats), iter(payload.integers[others:])
        for field in layout.floats:
            if not field.bits:
                floats.append(next(sent))
                continue
            matrix = next(codes).view(-1, field.shape[-1])
            ranges = next(sent).unbind(1) if self._over else ()
            shaped = tuple(number.view(self._shape_of_ranges(field)) for number in ranges)
            floats.append(self.decode(matrix, shaped, way=way).view(field.shape))
        decoded = Payload(tuple(floats), payload.integers[:others], payload.labels)
        return decoded if payload.lost is None else self._without(decoded, payload.lost, layout)

    def _without(self, decoded: Payload, lost: Lost, layout: Layout) -> Payload:
        """What has been decoded, which says that values are lost whose code or range is."""
        others, gone = len(layout.integers), list[Tensor | None]()
        sent, codes = iter(lost.floats), iter(lost.integers[others:])
        for field in layout.floats:
            missing = next(codes) if field.bits else next(sent)
            if field.bits and self._over and (numbers := next(sent)) is not None:
                rows, width = prod(field.shape[:-1]), field.shape[-1]
                of_ranges = numbers.any(1).view(self._shape_of_ranges(field)).expand(rows, width).reshape(field.shape)
                missing = of_ranges if missing is None else missing | of_ranges
            gone.append(missing)
        return replace(decoded, lost=Lost(tuple(gone), lost.integers[:others], lost.fill))

    @property
    def _over(self) -> tuple[int, ...]:
        return _OVER.get(self.range, ())

    def _ranges(self, field: Floats) -> Floats | None:
        if not self._over:
            return None
        return replace(field, shape=(prod(self._shape_of_ranges(field)), self.numbers), bits=32, back=0, protected=True)

    def _shape_of_ranges(self, field: Floats) -> tuple[int, int]:
        rows, width = prod(field.shape[:-1]), field.shape[-1]
        return 1 if 0 in self._over else rows, 1 if 1 in self._over else width


def whole(codes: Tensor) -> Tensor:
    """Codes as int64; of what is not finite, 0: its range tells."""
    return codes.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0).long()


def positive(step: Tensor) -> Tensor:
    """A step that can be divided by: where all values are equal, any."""
    return step.clamp(min=torch.finfo(torch.float32).tiny)
