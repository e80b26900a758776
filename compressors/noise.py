"""Random numbers in large counts, the same on every device and drawn where they are used.

A batch of smashed activations has millions of values; drawing noise for it on the CPU takes a GPU longer than a step.
So a generator, which lives on the CPU and whose stream belongs to one step, gives a key only; number i is a function of
the key and i (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), made
of integer operations, which are exact everywhere. `exponential` and `normal` agree over devices to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compressors.interface import draw_device

_STEP = 0x9E3779B97F4A7C15  # the golden ratio's fraction, 64 bits
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BLOCK = 1 << 15  # words at a time on a CPU, whose cache holds them; on a GPU all at once


def uniform(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Numbers from [0, 1), multiples of 2**-24: fp32 in this shape, on this device."""
    count = math.prod(shape)
    return _halves(count, generator, device)[:count].view(tuple(shape))


def exponential(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Exp(1) numbers, at most 16.7: fp32 in this shape, on this device."""
    return uniform(shape, generator, device).neg_().log1p_().neg_()


def normal(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Standard normal numbers, at most 5.8 in size (Box and Muller): fp32 in this shape, on this device."""
    count = math.prod(shape)
    radius, angle = _halves(count, generator, device).view(-1, 2).unbind(1)
    radius = radius.neg().log1p_().mul_(-2).sqrt_()
    angle = angle * (2 * math.pi)
    return torch.cat([angle.cos().mul_(radius), angle.sin().mul_(radius)])[:count].view(tuple(shape))


def _halves(count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """At least `count` numbers as in `uniform`, two from each word, (2 ceil(count / 2),)."""
    key = int(torch.randint(2**63 - 1, (), generator=generator, device=draw_device(generator)))
    words = (count + 1) // 2
    block = min(words, _BLOCK) if device.type == "cpu" else words
    steps = torch.arange(block, device=device).mul_(_signed(_STEP))
    found = torch.empty(2 * words, device=device)
    for first in range(0, words, max(1, block)):
        size = min(block, words - first)
        mixed = _mixed(steps[:size] + _signed(key + (first + 1) * _STEP))
        torch.mul(mixed.view(torch.int32) >> 8, 2.0**-24, out=found[2 * first : 2 * (first + size)])
    return found.add_(0.5)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finalizer, in place."""
    x = _fold(x, 30).mul_(_signed(_FIRST))
    x = _fold(x, 27).mul_(_signed(_SECOND))
    return _fold(x, 31)


def _fold(x: Tensor, bits: int) -> Tensor:
    """x ^= x >> bits, without a sign."""
    return x.bitwise_xor_((x >> bits).bitwise_and_((1 << 64 - bits) - 1))


def _signed(word: int) -> int:
    """A word of 64 bits as torch's integers have it."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word
