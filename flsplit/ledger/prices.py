"""What was sent, in bits (Sections 2 and 3.1 of the ADC paper).

Three prices a step, all integers: `actual` (what is really needed), `nominal` (the paper's Table 1 with the
requested ratio, times the price of `base`) and `wire` (bytes of the packed messages). They depend on shapes alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache

from compressors import BatchShape, Floats, Layout, labels_of
from flsplit.split.codec import wire_bytes
from flsplit.split.passage import carries
from flsplit.split.stages import Stages


def base_layout(shape: BatchShape) -> Layout:
    """What `base` sends: every activation as a float, one hard label per sample (Section 3.1)."""
    return Layout((Floats((shape.batch, shape.tokens, shape.width)),), labels=labels_of(shape))


@dataclass(kw_only=True)
class Tally:
    """Sums over training steps. Bits and bytes are exact integers; `loss` is the sum of the steps' losses.

    What a channel has lost and sent again (`retransmitted_...`) is in none of the other sums.
    """

    samples: int = 0
    steps: int = 0
    loss: float = 0.0
    uplink_bits: int = 0
    downlink_bits: int = 0
    nominal_bits: int = 0
    wire_bytes: int = 0
    retransmitted_uplink_bits: int = 0
    retransmitted_downlink_bits: int = 0
    base_uplink_bits: int = 0
    base_downlink_bits: int = 0

    def __iadd__(self, other: Tally) -> Tally:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def __add__(self, other: Tally) -> Tally:
        total = replace(self)
        total += other
        return total

    @property
    def xi(self) -> float | None:
        """Mean of the uplink and the downlink ratio to `base` (Section 3.1); None before the first step.

        Where no gradients come back, with or without compression, it is the uplink's alone.
        """
        if not self.base_uplink_bits:
            return None
        up = self.uplink_bits / self.base_uplink_bits
        return (up + self.downlink_bits / self.base_downlink_bits) / 2 if self.base_downlink_bits else up

    @property
    def retransmitted_bits(self) -> int:
        """What was lost and sent again, both ways."""
        return self.retransmitted_uplink_bits + self.retransmitted_downlink_bits

    @property
    def mean_loss(self) -> float:
        """Mean over steps; NaN without any."""
        return self.loss / self.steps if self.steps else float("nan")

    def as_dict(self) -> dict[str, int | float]:
        """The plain values, to be stored or sent; `Tally(**values)` brings them back."""
        return asdict(self)


class PriceList:
    """What one step costs with a compressor and the stages behind it; each shape of a batch is worked out once.

    Args:
        stages: whose layouts count.
        split: whether activations cross at all; if not, steps cost nothing.

    Attributes:
        step: the uplink and its downlink, for a shape.
        exchange: what clients and server tell one another before it; nothing where each compresses by itself.
        bounds: for a batch of which it is not known yet in how many groups it goes, what both together cost at least
            and at most.
    """

    def __init__(self, stages: Stages, *, split: bool = True) -> None:
        self.step = lru_cache(maxsize=None)(
            lambda shape: _price(stages, shape) if split else Tally(samples=shape.batch, steps=1)
        )
        self.exchange = lru_cache(maxsize=None)(lambda shape: _price_before(stages, shape) if split else Tally())
        self.bounds = lru_cache(maxsize=None)(
            lambda shape: tuple(self.step(bound) + self.exchange(bound) for bound in stages.bounds(shape))
        )


def _price(stages: Stages, shape: BatchShape) -> Tally:
    route, base = stages.route(shape), base_layout(shape)
    uplink, downlink = route.up[-1], route.down[-1]
    base_down = base.downlink_bits if stages.answers else 0
    up, down = stages.nominal(shape)
    return Tally(
        samples=shape.batch,
        steps=1,
        uplink_bits=uplink.uplink_bits,
        downlink_bits=downlink.uplink_bits,
        nominal_bits=round(up * base.uplink_bits) + round(down * base_down),
        wire_bytes=wire_bytes(uplink) + (wire_bytes(downlink) if carries(downlink) else 0),
        base_uplink_bits=base.uplink_bits,
        base_downlink_bits=base_down,
    )


def _price_before(stages: Stages, shape: BatchShape) -> Tally:
    """Of the exchange before a step, which is in no nominal price."""
    if stages.exchange is None:
        return Tally()
    route = stages.exchange.route(shape)
    up, down = route.up[-1], route.down[-1]
    return Tally(
        uplink_bits=up.uplink_bits, downlink_bits=down.uplink_bits, wire_bytes=wire_bytes(up) + wire_bytes(down)
    )
