"""Additive white Gaussian noise on values that are sent as amplitudes."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.channels.analogue import Analogue, gaussian


class Awgn(Analogue):
    """y = x + n: noise of the same variance in every value. The link of learned wireless transmission.

    Bourtsoulatze et al. 2019 (arXiv 1809.01733) normalise and count so. Of bits that are sent over such a link,
    `bitflip` with `ebn0_db`.

    Args:
        snr_db: see `Analogue`, as are the others.
        up: whether activations are disturbed.
        down: whether gradients are.
        code_rate: of what is protected.
        at_eval: whether models are evaluated through it as well.
    """

    def through(self, values: Tensor, noise: float, *, generator: torch.Generator, block: torch.Generator) -> Tensor:
        """See `Analogue`."""
        return gaussian(values, generator).mul_(noise).add_(values)
