"""A digital link that turns bits over."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressors.channels.interface import (
    Channel,
    Span,
    changed,
    decibels,
    disturbed,
    drawn_ratio,
    values_of,
    with_zeros,
)
from compressors.channels.packets import erased, geometric, packets
from compressors.interface import Integers, Layout, Payload, onto
from compressors.lost import FILLS
from compressors.options import choice, fraction
from compressors.stage import Way

FADINGS = ("none", "rayleigh")
_CHECKSUM = 32  # bits of a packet's


class Bitflip(Channel):
    """Each bit of a message's values, as they are packed (a quantiser's codes, or fp32), is turned over by chance.

    The chance is `rate`, or that of uncoded bits with BPSK, or QPSK with Gray labels, at `ebn0_db`: Q(sqrt(2 Eb/N0)).
    With `fading=rayleigh`, Eb/N0 is multiplied by a gain |h|^2 of mean 1 for each `coherence` steps, known at the
    receiver; the mean over gains is (1 - sqrt(g / (1 + g))) / 2 with g the mean Eb/N0 (Proakis, Digital
    Communications, Section 13.3).

    Args:
        rate: of bits that are turned over, in [0, 1]; None: from `ebn0_db`.
        ebn0_db: energy of a bit over the noise's density, in decibels; or [least, largest], between which it is drawn
            for each message. None: `rate` says it.
        fading: `none` or `rayleigh`, of `ebn0_db`.
        coherence: steps of a client's round in which the gain stays the same.
        checksum: whether packets are checked (CRC-32, 32 bits each): one with a bit turned over is lost as a whole,
            as `erasure` loses it.
        packet_bytes: size of a packet, with `checksum`.
        fill: what values of a lost packet are, see `erasure`.
        protect: whether labels, indices and ranges arrive as they were, at the price of `code_rate`; if not, those that
            come out as none are taken modulo how many there are.
        up: whether activations are disturbed.
        down: whether gradients are.
        code_rate: of what is protected.
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for a value that cannot be.
    """

    def __init__(
        self, *, rate: float | None = None, ebn0_db: float | list[float] | None = None, fading: str = "none",
        coherence: int = 1, checksum: bool = False, packet_bytes: int = 1500, fill: str = "zero",
        protect: bool = True, up: bool = True, down: bool = True, code_rate: float = 0.5, at_eval: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(up=up, down=down, code_rate=code_rate, at_eval=at_eval)
        if (rate is None) == (ebn0_db is None):
            both = ", not both" if rate is not None else ""
            raise ValueError(f"one of channel.rate and channel.ebn0_db must be given{both}")
        if rate is not None and fading != "none":
            raise ValueError("channel.fading is of channel.ebn0_db; with channel.rate it must be none")
        if coherence < 1:
            raise ValueError(f"channel.coherence must be at least 1 step, got {coherence}")
        if packet_bytes < 1:
            raise ValueError(f"channel.packet_bytes must be at least 1, got {packet_bytes}")
        self._rate = None if rate is None else fraction("rate", rate, zero=True, group="channel")
        self._bounds = None if ebn0_db is None else decibels("ebn0_db", ebn0_db)
        self._fades = choice("fading", fading, FADINGS, group="channel") == "rayleigh"
        self._fill = choice("fill", fill, FILLS, group="channel")
        self.coherence = coherence if self._fades else None
        self._size = packet_bytes if checksum else None
        self.protect = protect

    def fields(self, layout: Layout, way: Way) -> Layout:
        """The message, its code's further bits, and the packets' checksums."""
        base = super().fields(layout, way)
        return Layout(base.floats, (*base.integers, *self._checksums(layout)), base.labels)

    def send(self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator, **_: object) -> Payload:
        """Zeros in the place of checksums."""
        sent = super().send(payload, layout, way=way, generator=generator)
        return with_zeros(sent, self._checksums(layout))

    def receive(
        self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator,
        block: torch.Generator | None = None,
    ) -> Payload:  # fmt: skip
        """Turn bits over, or lose the packets that they are in."""
        received, spans = self._received(payload, layout), disturbed(layout, protect=self.protect)
        total, chance = spans[-1].stop if spans else 0, self._chance(generator, block)
        if self._size is not None:
            sizes = packets(spans, self._size)
            whole = (1 - chance) ** (torch.tensor(sizes, dtype=torch.float64) + _CHECKSUM)
            lost = torch.rand(len(sizes), generator=generator, dtype=torch.float64) >= whole
            return erased(received, spans, lost, self._size, self._fill)
        at = turned_over(total, chance, generator)
        if not len(at):
            return received
        hit = [at[(at >= span.start) & (at < span.stop)] - span.start for span in spans]
        return changed(received, spans, [_flipped(values_of(received, s), s, own) for s, own in zip(spans, hit)])

    def _chance(self, generator: torch.Generator, block: torch.Generator | None) -> float:
        if self._rate is not None:
            return self._rate
        assert self._bounds is not None
        ratio = drawn_ratio(self._bounds, generator)
        if self._fades:
            assert block is not None
            ratio *= float(torch.randn(2, generator=block, dtype=torch.float64).square().sum() / 2)
        return math.erfc(math.sqrt(ratio)) / 2

    def _checksums(self, layout: Layout) -> tuple[Integers, ...]:
        if self._size is None:
            return ()
        count = len(packets(disturbed(layout, protect=self.protect), self._size))
        return (Integers((count,), _CHECKSUM),)


def turned_over(total: int, chance: float, generator: torch.Generator) -> Tensor:
    """Which of `total` bits are turned over: their places, ascending; each by `chance`, whatever befalls the others."""
    if chance <= 0 or not total:
        return torch.zeros(0, dtype=torch.int64)
    found, last = list[Tensor](), -1
    while last < total:
        expected = (total - last) * chance
        gaps = geometric(chance, int(expected + 4 * math.sqrt(expected) + 16), generator).clamp(max=total + 1)
        found.append(last + gaps.cumsum(0))
        last = int(found[-1][-1])
    at = torch.cat(found)
    return at[at < total]


def _flipped(values: Tensor, span: Span, at: Tensor) -> Tensor:
    """Values with some of their bits turned over; `at` counts bits from the field's first."""
    field = span.field
    if not len(at):
        return values
    # Each bit is in `at` once at most, so masks of bits of the same value add up.
    at = onto(at, values.device)
    mask = torch.zeros(span.count, dtype=torch.int64, device=at.device)
    mask = mask.index_add_(0, at // field.bits, 1 << (at % field.bits)).view(values.shape)
    if isinstance(field, Integers):
        codes = values ^ mask
        return codes if field.below is None else codes % field.below
    if field.bits == 16:
        return (values.half().view(torch.int16) ^ mask.to(torch.int16)).view(torch.float16).to(values.dtype)
    return (values.float().contiguous().view(torch.int32) ^ mask.to(torch.int32)).view(torch.float32)
