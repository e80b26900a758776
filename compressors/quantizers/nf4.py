"""Levels at the quantiles of a normal distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.interface import onto
from compressors.quantizers.interface import Quantizer, positive
from compressors.stage import Way

_TAIL = 0.9677083  # the probability at which the outermost levels lie: halfway between 1 - 1/30 and 1 - 1/32


class Nf4(Quantizer):
    """NormalFloat of four bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314, Appendix E): 16 levels.

    A range is its largest magnitude, to which the levels, from -1 to 1 with one at 0, are scaled; a value takes the
    nearest.

    Args:
        up: see `Quantizer`, as are the others.
        down: whether gradients are quantised.
        range: `tensor`, `token` or `channel`; the paper's is a block of 64 values.
        at_eval: whether models are evaluated through it as well.
    """

    def __init__(self, *, up: bool = True, down: bool = True, range: str = "token", at_eval: bool = False) -> None:
        super().__init__(up=up, down=down, range=range, at_eval=at_eval)
        self._levels = levels()
        self._between = (self._levels[1:] + self._levels[:-1]) / 2

    def bits(self, way: Way) -> int:
        """See `Quantizer`."""
        return 4

    def encode(
        self, values: Tensor, over: tuple[int, ...], *, way: Way, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Quantizer`; a range is its largest magnitude."""
        scale = positive(values.abs().amax(over, keepdim=True))
        codes = torch.bucketize(values / scale, onto(self._between, values.device))
        return codes.clamp_(max=15), (scale,)  # what is not finite lies behind all

    def decode(self, codes: Tensor, ranges: tuple[Tensor, ...], *, way: Way) -> Tensor:
        """See `Quantizer`."""
        return onto(self._levels, codes.device)[codes] * ranges[0]


def levels() -> Tensor:
    """(16,), from -1 to 1: quantiles of the normal distribution, eight of the positive half and seven of the other."""
    positive_half = torch.special.ndtri(torch.linspace(_TAIL, 0.5, 9, dtype=torch.float64)[:-1])
    negative_half = -torch.special.ndtri(torch.linspace(_TAIL, 0.5, 8, dtype=torch.float64)[:-1])
    found = torch.cat([positive_half, negative_half, torch.zeros(1, dtype=torch.float64)]).sort().values
    return (found / found.max()).float()
