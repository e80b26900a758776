"""Pillow's antialiased bilinear resizing of 8-bit images, for a whole batch on any device."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_ONE = 1 << 22  # Pillow's weights are integers, this many to the one


def resize(images: Tensor, size: int) -> Tensor:
    """Resizes to 8-bit values: across, then down, rounding each time.

    On the CPU torch does this itself. Elsewhere two matrix products do, in float64, where all sums are exact.

    Args:
        images: (B, C, h, w) uint8.
        size: Side of the result in pixels.

    Returns:
        (B, C, size, size), uint8 or float64 with whole numbers in 0..255.
    """
    if images.shape[-2:] == (size, size):
        return images
    if images.device.type == "cpu":
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return resize_exactly(images, size)


def resize_exactly(images: Tensor, size: int) -> Tensor:
    """What `resize` does off the CPU: Pillow's result to the bit, (B, C, size, size) float64."""
    height, width = images.shape[-2:]
    across = weights(width, size, images.device)
    down = weights(height, size, images.device)
    x = (images.double() @ across.T + 0.5).floor_()
    return (down @ x + 0.5).floor_()


@cache
def weights(old: int, new: int, device: torch.device) -> Tensor:
    """Weight of each of `old` pixels in each of `new` ones, (new, old) float64, multiples of 2**-22.

    A triangle around the new pixel's centre, as wide as the coarser of the two grids asks for.
    """
    scale = old / new
    width = max(scale, 1.0)
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(old, dtype=torch.float64) + 0.5 - centre[:, None]).abs() / width
    triangle = (1 - distance).clamp_(min=0)
    exact = triangle / triangle.sum(dim=1, keepdim=True)
    return ((exact * _ONE + 0.5).floor_() / _ONE).to(device)
