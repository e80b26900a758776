"""Values on the air as they are: what analogue channels have in common."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from compressors.channels.interface import (
    Channel,
    changed,
    decibels,
    disturbed,
    drawn_ratio,
    values_of,
    without,
)
from compressors.interface import BatchShape, Floats, Integers, Layout, Payload
from compressors.noise import normal
from compressors.stage import Way

_POWER = Floats((1,), back=0, protected=True)


class Analogue(Channel):
    """Every value is an amplitude (joint source-channel coding); two, one behind the other, are a complex symbol.

    Messages are normalised to a mean power of 1 a value, disturbed, and scaled back by the receiver, to whom the
    message's root mean square goes along as a protected float. So the ratio of signal to noise is that of the mean
    square of a message's values to the variance of the noise in each. Of complex symbols it is Es/N0. Bits are priced
    as if the values were sent as numbers; on the air each takes half a complex channel use, whatever its bits.

    Args:
        snr_db: in decibels; or [least, largest], between which it is drawn for each message.
        up: see `Channel`, as are the others.
        down: whether gradients are disturbed.
        code_rate: of labels, indices and whatever else is protected.
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for what is no number of decibels.
    """

    def __init__(
        self, *, snr_db: float | list[float] = 10.0, up: bool = True, down: bool = True, code_rate: float = 0.5,
        at_eval: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(up=up, down=down, code_rate=code_rate, at_eval=at_eval)
        self._bounds = decibels("snr_db", snr_db)

    @abstractmethod
    def through(
        self, values: Tensor, noise: float, *, generator: torch.Generator, block: torch.Generator
    ) -> Tensor | None:
        """What arrives; None for nothing: then all values are lost, and 0.

        Args:
            values: (M,), of mean square 1.
            noise: standard deviation of the noise in each value.
            generator: of the message.
            block: as long as `coherence` says; the message's own where that is None.
        """

    def bind(self, layout: Layout, shape: BatchShape, *, generator: torch.Generator) -> Analogue:
        """See `Stage`.

        Raises:
            ValueError: behind a quantiser.
        """
        self._check(layout)
        return self

    def fields(self, layout: Layout, way: Way) -> Layout:
        """The message, its power, and its code's further bits."""
        self._check(layout)
        return super().fields(_with_power(layout), way)

    def send(self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator, **_: object) -> Payload:
        """Send the root mean square along."""
        spans = disturbed(layout, protect=True)
        squares = sum(values_of(payload, span).square().sum() for span in spans)
        power = torch.as_tensor(squares / max(1, sum(span.count for span in spans))).sqrt().view(1)
        with_power = Payload((*payload.floats, power), payload.integers, payload.labels)
        return super().send(with_power, _with_power(layout), way=way, generator=generator)

    def receive(
        self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator,
        block: torch.Generator | None = None,
    ) -> Payload:  # fmt: skip
        """Disturb the values."""
        received, power = self._received(payload, layout), payload.floats[-1]
        spans = disturbed(layout, protect=True)
        sent = [values_of(received, span) for span in spans]
        if not sent:
            return received
        values = torch.cat([t.flatten() for t in sent]) if len(sent) > 1 else sent[0].flatten()
        noise = drawn_ratio(self._bounds, generator) ** -0.5
        scale = power.clamp(min=torch.finfo(power.dtype).tiny)
        arrived = self.through(values / scale, noise, generator=generator, block=block or generator)
        if arrived is None:
            nothing = changed(received, spans, [torch.zeros_like(t) for t in sent])
            return without(nothing, spans, [torch.ones_like(t, dtype=torch.bool) for t in sent], "zero")
        parts = (arrived * scale).split([span.count for span in spans])
        return changed(received, spans, [part.view(t.shape) for part, t in zip(parts, sent)])

    def _check(self, layout: Layout) -> None:
        if any(isinstance(span.field, Integers) for span in disturbed(layout, protect=True)):
            raise ValueError(
                f"channel={self.name} puts values on the air as they are, not a quantiser's codes; quantizer must be "
                "none, or the channel one of bits or packets (bitflip, erasure)"
            )


def gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the shape of `like`, on its device."""
    return normal(like.shape, generator, like.device)


def _with_power(layout: Layout) -> Layout:
    return Layout((*layout.floats, _POWER), layout.integers, layout.labels)
