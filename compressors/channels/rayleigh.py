"""Rayleigh block fading of values that are sent as amplitudes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressors.channels.analogue import Analogue, gaussian
from compressors.interface import onto
from compressors.options import choice

KNOWN = ("perfect", "none")


class Rayleigh(Analogue):
    """y = h x + n: one complex gain h for all symbols of a message, of mean power 1, and noise as in `awgn`.

    `snr_db` is the mean over fading. A receiver that knows h divides by it, so noise is larger by 1 / |h|; one that
    does not takes y as it is, amplitude and phase wrong.

    Args:
        snr_db: see `Analogue`, as are `up`, `down`, `code_rate` and `at_eval`.
        coherence: steps of a client's round in which h stays the same; uplink and downlink have their own.
        knowledge: of h at the receiver: `perfect` or `none`.
        outage_db: if |h|^2 SNR is below so many decibels nothing arrives but what is protected: values are 0, and
            their gradients; None: everything always arrives, however noisy.
        up: whether activations are disturbed.
        down: whether gradients are.
        code_rate: of what is protected.
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for a value that cannot be.
    """

    def __init__(
        self, *, snr_db: float | list[float] = 10.0, coherence: int = 1, knowledge: str = "perfect",
        outage_db: float | None = None, up: bool = True, down: bool = True, code_rate: float = 0.5,
        at_eval: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(snr_db=snr_db, up=up, down=down, code_rate=code_rate, at_eval=at_eval)
        if coherence < 1:
            raise ValueError(f"channel.coherence must be at least 1 step, got {coherence}")
        if outage_db is not None and not math.isfinite(outage_db):
            raise ValueError(f"channel.outage_db must be a number of decibels or null, got {outage_db}")
        self.coherence = coherence
        self._known = choice("knowledge", knowledge, KNOWN, group="channel") == "perfect"
        self._outage = None if outage_db is None else 10 ** (outage_db / 10)

    def through(
        self, values: Tensor, noise: float, *, generator: torch.Generator, block: torch.Generator
    ) -> Tensor | None:
        """See `Analogue`."""
        real, imaginary = (torch.randn(2, generator=block) / math.sqrt(2)).tolist()
        gain = real**2 + imaginary**2
        if self._outage is not None and gain / noise**2 < self._outage:
            return None
        if self._known:  # dividing noise by h turns its phase, which changes nothing about it
            return gaussian(values, generator).mul_(noise / math.sqrt(gain)).add_(values)
        pairs = torch.cat([values, values.new_zeros(len(values) % 2)]).view(-1, 2)
        turned = pairs @ onto(torch.tensor([[real, imaginary], [-imaginary, real]], dtype=values.dtype), values.device)
        return gaussian(values, generator).mul_(noise).add_(turned.flatten()[: len(values)])
