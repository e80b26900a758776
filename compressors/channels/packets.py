"""Messages in packets: which are lost, and what is left of the values that were in them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from compressors.channels.interface import Span, changed, values_of, without
from compressors.interface import Payload, onto
from compressors.lost import filled


def packets(spans: tuple[Span, ...], size: int) -> list[int]:
    """Bits of each packet of a message, `size` bytes each and the last perhaps fewer."""
    total = spans[-1].stop if spans else 0
    return [min(8 * size, total - start) for start in range(0, total, 8 * size)]


class Losses:
    """Which packets are lost, one after another: independently, or in bursts (Gilbert 1960, Elliott 1963).

    With bursts, the link is good or bad, loses nothing or everything, and changes at random between packets, so that a
    burst of losses has `burst` packets in the mean and a share `rate` of all is lost.

    Args:
        rate: share of packets that are lost, in [0, 1].
        burst: mean length of a burst; None for losses that do not depend on each other.

    Raises:
        ValueError: for a burst that such a rate cannot have.
    """

    def __init__(self, rate: float, burst: float | None) -> None:
        self.rate, self._burst = rate, burst
        shortest = max(1.0, rate / (1 - rate)) if rate < 1 else math.inf
        if burst is not None and not shortest <= burst < math.inf:
            raise ValueError(
                f"channel.burst must be at least {shortest:g} packets for channel.loss={rate:g}, or null, got {burst}"
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) bool: whether each of so many packets in succession is lost."""
        if self._burst is None or self.rate == 0:
            return torch.rand(count, generator=generator, dtype=torch.float64) < self.rate
        flags, found = [torch.zeros(0, dtype=torch.bool)], 0
        for state, length in self.runs(generator):
            if found >= count:
                break
            flags.append(torch.full((min(length, count - found),), state))
            found += len(flags[-1])
        return torch.cat(flags)

    def runs(self, generator: torch.Generator) -> Iterator[tuple[bool, int]]:
        """How many packets in succession are lost, or arrive, without end: whether, and how many."""
        ends = 1 - self.rate if self._burst is None else 1 / self._burst
        begins = self.rate * ends / (1 - self.rate)
        state = bool(torch.rand((), generator=generator, dtype=torch.float64) < self.rate)
        while True:
            yield state, int(geometric(ends if state else begins, 1, generator)[0])
            state = not state


def geometric(chance: float, count: int, generator: torch.Generator) -> Tensor:
    """(count,) int64: how many tries until the first success, that one included."""
    if chance >= 1:
        return torch.ones(count, dtype=torch.int64)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    return (torch.log1p(-uniform) / math.log1p(-chance)).floor().clamp(max=2**62).long() + 1


def erased(payload: Payload, spans: tuple[Span, ...], lost: Tensor, size: int, fill: str) -> Payload:
    """What is left of a payload, which says what is not.

    Args:
        payload: as sent.
        spans: its fields that were in packets.
        lost: (packets,) bool.
        size: bytes of a packet.
        fill: what stands in the place of values of which a bit is missing, see `filled`.
    """
    if not bool(lost.any()):
        return payload
    before = torch.cat([torch.zeros(1, dtype=torch.int64), lost.long()]).cumsum(0)
    values, gone = list[Tensor](), list[Tensor]()
    for span in spans:
        sent = values_of(payload, span)
        first = span.start + torch.arange(span.count, device=sent.device) * span.field.bits
        so_far = onto(before, sent.device)
        missing = so_far[(first + span.field.bits - 1) // (8 * size) + 1] > so_far[first // (8 * size)]
        gone.append(missing.view(sent.shape))
        values.append(filled(sent, gone[-1], fill))
    return without(changed(payload, spans, values), spans, gone, fill)
