"""Floats of eight bits."""

from __future__ import annotations

import torch

from compressors.options import choice
from compressors.quantizers.cast import Cast

FORMATS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


class Fp8(Cast):
    """The two formats of Micikevicius et al. 2022 (arXiv 2209.05433).

    Args:
        format: `e4m3` (to 448, three bits of mantissa) or `e5m2` (to 57,344, two), where gradients vary more.
        up: see `Cast`, as are the others.
        down: whether gradients are quantised.
        range: `tensor`, `token`, `channel` or `none`.
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for a word that is none of its option's.
    """

    def __init__(
        self, *, format: str = "e4m3", up: bool = True, down: bool = True, range: str = "tensor", at_eval: bool = False
    ) -> None:
        super().__init__(up=up, down=down, range=range, at_eval=at_eval)
        self.format = FORMATS[choice("format", format, FORMATS, group="quantizer")]  # type: ignore[misc]
