"""Pillow's antialiased bilinear resizing of 8-bit images, for a whole batch on any device."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

_ONE = 1 << 22  # Pillow's weights are integers, this many to the one


def resize(images: Tensor, size: int) -> Tensor:
    """Resizes to 8-bit values: across and down, in Pillow's order, rounding each time.

    On the CPU torch does this where it comes out as Pillow's (32 to 96 or 224), otherwise Pillow. Elsewhere two matrix
    products do, in float64, where all sums are exact.

    Args:
        images: (B, C, h, w) uint8, C 1 (grey) or 3.
        size: Side of the result in pixels.

    Returns:
        (B, C, size, size), uint8 or float64 with whole numbers in 0..255.
    """
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    if images.device.type != "cpu":
        return resize_exactly(images, size)
    return _by_torch(images, size) if torch_is_pillow(height, width, size) else _by_pillow(images, size)


def resize_exactly(images: Tensor, size: int) -> Tensor:
    """What `resize` does off the CPU: Pillow's result to the bit, (B, C, size, size) float64."""
    height, width = images.shape[-2:]
    across = weights(width, size, images.device)
    down = weights(height, size, images.device)
    x = images.double()
    if down_first(height, width, size):
        x = (down @ x + 0.5).floor_()
        return (x @ across.T + 0.5).floor_()
    x = (x @ across.T + 0.5).floor_()
    return (down @ x + 0.5).floor_()


def _by_torch(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


@cache
def torch_is_pillow(height: int, width: int, size: int) -> bool:
    """Whether torch resizes images of this shape on this CPU as Pillow does; tried on 64 of them."""
    levels = np.random.default_rng(0).integers(0, 256, (64, 3, height, width), dtype=np.uint8)
    images = torch.from_numpy(levels)
    return torch.equal(_by_torch(images, size), _by_pillow(images, size))


def _by_pillow(images: Tensor, size: int) -> Tensor:
    pixels = images.permute(0, 2, 3, 1).numpy()
    pixels = pixels if pixels.shape[-1] == 3 else pixels[..., 0]
    small = np.stack([np.asarray(_resized(Image.fromarray(image), size, size)) for image in pixels])
    return torch.from_numpy(small).view(len(small), size, size, -1).permute(0, 3, 1, 2)


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)


@cache
def down_first(height: int, width: int, size: int) -> bool:
    """Whether the Pillow at hand resizes images of this shape down before across, which differs between versions.

    Tried on one image: whether it comes out as in two calls, down and then across.
    """
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    return _resized(_resized(image, width, size), size, size) == _resized(image, size, size)


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
