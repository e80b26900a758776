"""Quantisers that are a number format of PyTorch's."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from compressors.quantizers.interface import RANGES, Quantizer, positive
from compressors.stage import Way

_WHOLE = {1: torch.uint8, 2: torch.int16}  # of as many bytes


class Cast(Quantizer):
    """Values as `format` has them: rounded to nearest, of two equally near the even one.

    Args:
        up: see `Quantizer`, as are the others.
        down: whether gradients are quantised.
        range: `tensor`, `token` or `channel`: values are divided by a scale, so that the largest magnitude of a range
            is the format's largest number; or `none`.
        at_eval: whether models are evaluated through it as well.
    """

    format: ClassVar[torch.dtype]

    def __init__(self, *, up: bool = True, down: bool = True, range: str = "none", at_eval: bool = False) -> None:
        super().__init__(up=up, down=down, range=range, at_eval=at_eval, ranges=(*RANGES, "none"))

    def bits(self, way: Way) -> int:
        """See `Quantizer`."""
        return 8 * self.format.itemsize

    def encode(
        self, values: Tensor, over: tuple[int, ...], *, way: Way, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Quantizer`; a range is its scale."""
        if not over:
            return self._codes(values), ()
        largest = torch.finfo(self.format).max
        scale = positive(values.abs().amax(over, keepdim=True) / largest)
        return self._codes((values / scale).clamp_(-largest, largest)), (scale,)

    def decode(self, codes: Tensor, ranges: tuple[Tensor, ...], *, way: Way) -> Tensor:
        """See `Quantizer`."""
        values = codes.to(_WHOLE[self.format.itemsize]).view(self.format).float()
        return values * ranges[0] if ranges else values

    def _codes(self, values: Tensor) -> Tensor:
        mask = 2 ** (8 * self.format.itemsize) - 1
        if self.format == torch.float8_e4m3fn:  # which has no infinities
            values = values.masked_fill(values.isinf(), torch.nan)
        return values.to(self.format).view(_WHOLE[self.format.itemsize]).long() & mask
