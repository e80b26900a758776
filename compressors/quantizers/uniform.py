"""Uniform quantisation: evenly spaced levels over the range of the values."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors import noise
from compressors.options import choice
from compressors.quantizers.interface import Quantizer, positive, whole
from compressors.stage import Way

MODES = ("affine", "symmetric")
ROUNDINGS = ("nearest", "stochastic")


class Uniform(Quantizer):
    """2^bits levels.

    `affine`: from the least value to the largest, both of them levels (two floats a range). `symmetric`: as signed
    integers are used, 2^bits - 1 levels from minus to plus the largest magnitude, one of them 0 (one float a range);
    with 1 bit, these two magnitudes alone. A range whose width is no fp32 number (above 3.4e38) gives NaN.

    Args:
        bits: of each value, 1 to 16.
        bits_down: of each gradient; None for as many.
        mode: `affine` or `symmetric`.
        rounding: `nearest` (of two equally near, the even level), or `stochastic`: up with a probability of how far it
            is above the level below, so that the mean is right.
        up: see `Quantizer`, as are the others.
        down: whether gradients are quantised.
        range: `tensor`, `token` or `channel`.
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for bits outside 1 to 16, or a word that is none of its option's.
    """

    def __init__(
        self, *, bits: int = 8, bits_down: int | None = None, mode: str = "affine", rounding: str = "nearest",
        up: bool = True, down: bool = True, range: str = "tensor", at_eval: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(up=up, down=down, range=range, at_eval=at_eval)
        for key, value in (("bits", bits), ("bits_down", bits if bits_down is None else bits_down)):
            if not 1 <= value <= 16:
                raise ValueError(f"quantizer.{key} must be in [1, 16], got {value}")
        self._bits: dict[Way, int] = {"up": bits, "down": bits if bits_down is None else bits_down}
        self._affine = choice("mode", mode, MODES, group="quantizer") == "affine"
        self._stochastic = choice("rounding", rounding, ROUNDINGS, group="quantizer") == "stochastic"
        self.numbers = 2 if self._affine else 1

    def bits(self, way: Way) -> int:
        """See `Quantizer`."""
        return self._bits[way]

    def encode(
        self, values: Tensor, over: tuple[int, ...], *, way: Way, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Quantizer`; a range is its least value and the step between levels, or the step alone."""
        if self._affine:
            low, step = values.amin(over, keepdim=True), self._step(values, over, way)
            return self._rounded((values - low).div_(step), self._most(way), generator), (low, step)
        step, most = self._step(values, over, way), self._most(way)
        levels = (values / step).add_(most / 2)  # from 0
        return self._rounded(levels, most, generator), (step,)

    def decode(self, codes: Tensor, ranges: tuple[Tensor, ...], *, way: Way) -> Tensor:
        """See `Quantizer`."""
        values = codes.to(ranges[0].dtype)
        if self._affine:
            low, step = ranges
            return values.mul_(step).add_(low)
        return values.sub_(self._most(way) / 2).mul_(ranges[0])

    def _most(self, way: Way) -> int:
        """The last code; `symmetric` leaves one unused, so that 0 is a level."""
        most = 2 ** self._bits[way] - 1
        return most if self._affine or most == 1 else most - 1

    def _step(self, values: Tensor, over: tuple[int, ...], way: Way) -> Tensor:
        if self._affine:
            span = values.amax(over, keepdim=True) - values.amin(over, keepdim=True)
        else:
            span = 2 * torch.maximum(values.amax(over, keepdim=True), -values.amin(over, keepdim=True))
        return positive(span / self._most(way))

    def _rounded(self, levels: Tensor, most: int, generator: torch.Generator) -> Tensor:
        if self._stochastic:
            levels.add_(noise.uniform(levels.shape, generator, levels.device)).floor_()
        else:
            levels.round_()
        return whole(levels.clamp_(0, most))
