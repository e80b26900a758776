"""What was sent, in bits (Sections 2 and 3.1 of the ADC paper).

Three prices a step, all integers: `actual` (what is really needed), `nominal` (the paper's Table 1 with the
requested ratio, times the price of `base`) and `wire` (bytes of the packed messages). They depend on shapes alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache

from compressors import BatchShape, Compressor, Layout, bits_for
from flsplit.split.messages import wire_bytes

FLOAT_BITS = 32


def base_layout(shape: BatchShape) -> Layout:
    """What `base` sends: every activation as a float, one hard label per sample (Section 3.1)."""
    return Layout(((shape.batch, shape.tokens, shape.width),), ((shape.batch, bits_for(shape.classes)),))


@dataclass(kw_only=True)
class Tally:
    """Sums over training steps. Bits and bytes are exact integers; `loss` is the sum of the steps' losses."""

    samples: int = 0
    steps: int = 0
    loss: float = 0.0
    uplink_bits: int = 0
    downlink_bits: int = 0
    nominal_bits: int = 0
    wire_bytes: int = 0
    base_uplink_bits: int = 0
    base_downlink_bits: int = 0

    def __iadd__(self, other: Tally) -> Tally:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    @property
    def xi(self) -> float | None:
        """Mean of the uplink and the downlink ratio to `base` (Section 3.1); None before the first step."""
        if not self.base_uplink_bits:
            return None
        return (self.uplink_bits / self.base_uplink_bits + self.downlink_bits / self.base_downlink_bits) / 2

    @property
    def mean_loss(self) -> float:
        """Mean over steps; NaN without any."""
        return self.loss / self.steps if self.steps else float("nan")

    def as_dict(self) -> dict[str, int | float]:
        """The plain values, to be stored or sent; `Tally(**values)` brings them back."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Moves:
    """Which models a strategy moves between a client and the server; gradients of a model count as one.

    Attributes:
        first: to a client when it takes part for the first time.
        down: to a client at the start of each of its rounds.
        up: back from it at the end, if it succeeded.
        step: both ways in each of its steps.
        whole: whether these are whole models rather than client-side models.
    """

    first: int = 0
    down: int = 0
    up: int = 0
    step: int = 0
    whole: bool = False

    def bits(self, floats: int, *, first: bool, steps: int, succeeded: bool = True) -> int:
        """What one client's round moves.

        Args:
            floats: in one such model.
            first: whether it is the client's first round.
            steps: that it has taken.
            succeeded: whether it brings its model back.
        """
        count = self.first * first + self.down + self.up * succeeded + self.step * steps
        return FLOAT_BITS * floats * count


class PriceList:
    """What one step costs with a compressor, by the shape of its batch; each shape is worked out once.

    Args:
        compressor: whose layout counts.
        split: whether activations cross at all; if not, steps cost nothing.
    """

    def __init__(self, compressor: Compressor, *, split: bool = True) -> None:
        self.step = lru_cache(maxsize=None)(
            lambda shape: _price(compressor, shape) if split else Tally(samples=shape.batch, steps=1)
        )


def _price(compressor: Compressor, shape: BatchShape) -> Tally:
    layout, base = compressor.layout(shape), base_layout(shape)
    up, down = compressor.nominal_ratios(shape)
    return Tally(
        samples=shape.batch,
        steps=1,
        uplink_bits=layout.uplink_bits,
        downlink_bits=layout.downlink_bits,
        nominal_bits=round(up * base.uplink_bits) + round(down * base.downlink_bits),
        wire_bytes=wire_bytes(layout),
        base_uplink_bits=base.uplink_bits,
        base_downlink_bits=base.downlink_bits,
    )
