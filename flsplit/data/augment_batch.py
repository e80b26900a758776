"""The paper's transform for a batch of images of one size, on any device: what `augment.paper` does, to the bit.

Images that meet the same operation are handled together. Legend: B images, n of them in a group, C = 3
channels, H x W pixels. All arithmetic is Pillow's: blending in float32, tables and statistics in integers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from flsplit.data.augment import Draws, operations
from flsplit.data.device import put

# (n, 3, H, W) uint8 and one number per image, (n,) float64, to (n, 3, H, W) uint8
_Op = Callable[[Tensor, Tensor], Tensor]


def paper_batch(images: Tensor, draws: Draws) -> Tensor:
    """RandAugment and colour jitter with the given random numbers.

    Args:
        images: (B, 3, H, W) uint8.
        draws: For B images.

    Returns:
        (B, 3, H, W) uint8.
    """
    table = operations(*images.shape[-2:])
    magnitudes = np.array([magnitude for _, magnitude, _ in table])
    signed = np.array([signed for _, _, signed in table])
    functions = [_OPS[name] for name, _, _ in table]
    for ops, negative in zip(draws.ops.T, draws.negative.T):
        values = magnitudes[ops] * np.where(signed[ops] & negative, -1.0, 1.0)
        images = _in_groups(images, ops, functions, values)
    for kinds in draws.order.T:
        factors = draws.factors[np.arange(len(kinds)), kinds]
        images = _in_groups(images, kinds, [_brightness, _contrast, _saturation], factors)
    return images


def _in_groups(images: Tensor, keys: np.ndarray, functions: list[_Op], values: np.ndarray) -> Tensor:
    """Applies ``functions[keys[i]]`` with ``values[i]`` to image i, one call per function."""
    order = np.argsort(keys, kind="stable")
    present, starts = np.unique(keys[order], return_index=True)
    sorted_values = put(values[order], images.device)
    ends = [*starts[1:].tolist(), len(keys)]
    sorted_images = images[put(order, images.device)]
    groups = [
        functions[key](sorted_images[start:end], sorted_values[start:end])
        for key, start, end in zip(present, starts.tolist(), ends)
    ]
    return torch.cat(groups)[put(np.argsort(order), images.device)]


def _blend(plain: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Between `plain` (factor 0) and `images` (1), or beyond them; cut off to whole levels."""
    base = plain.to(torch.float32)
    difference = images.to(torch.float32) - base
    return (base + difference * factors.to(torch.float32).view(-1, 1, 1, 1)).clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """(n, 1, H, W) int32 luma, ITU-R 601-2, in Pillow's 16-bit fixed point."""
    red, green, blue = images.to(torch.int32).split(1, dim=1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _brightness(images: Tensor, factors: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, factors)


def _contrast(images: Tensor, factors: Tensor) -> Tensor:
    grey = _grey(images)
    mean = grey.sum(dim=(1, 2, 3), keepdim=True).double() / grey[0].numel()
    return _blend((mean + 0.5).floor(), images, factors)


def _saturation(images: Tensor, factors: Tensor) -> Tensor:
    return _blend(_grey(images), images, factors)


def _sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """The plain image is smoothed by a 3 x 3 kernel of ones with 5 in the middle, except at the border."""
    x = images.to(torch.int32)
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    smooth = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * x[..., 1:-1, 1:-1]
    plain = x.clone()
    plain[..., 1:-1, 1:-1] = (2 * smooth + 13).div(26, rounding_mode="floor")
    return _blend(plain, images, factors)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    step = (2 ** (8 - bits)).to(torch.uint8).view(-1, 1, 1, 1)
    return images - images % step


def _solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    return torch.where(images < thresholds.view(-1, 1, 1, 1), images, 255 - images)


def _auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True).double(), images.amax((2, 3), keepdim=True).double()
    scale = torch.full_like(low, 255.0).div_((high - low).clamp_(min=1))
    stretched = (images * scale + -low * scale).clamp_(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    levels = images.flatten(0, 1).flatten(1).long()  # (n C, H W)
    histogram = levels.new_zeros(len(levels), 256).scatter_add_(1, levels, torch.ones_like(levels))
    brightest = histogram.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - brightest) // 255
    below = histogram.cumsum(1) - histogram
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(1, levels).to(torch.uint8).view(images.shape)


@cache
def _source_pixels(name: str, magnitude: float, height: int, width: int, device: torch.device) -> Tensor:
    """(H W,) which pixel each pixel takes after a geometric operation, from 1; 0 is the black outside.

    torchvision and Pillow say so themselves: they transform an image of pixel numbers.
    """
    numbers = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    moved = _apply_op(Image.fromarray(numbers), name, magnitude, InterpolationMode.NEAREST, None)
    return torch.from_numpy(np.asarray(moved).astype(np.int64).ravel()).to(device)


def _geometric(name: str) -> _Op:
    def op(images: Tensor, magnitudes: Tensor) -> Tensor:
        size = images.shape[-2:]
        (magnitude,) = {size_magnitude for n, size_magnitude, _ in operations(*size) if n == name}
        sources = torch.stack([_source_pixels(name, sign * magnitude, *size, images.device) for sign in (1, -1)])[
            (magnitudes < 0).long()
        ]
        pixels = F.pad(images.flatten(2), (1, 0))
        return pixels.gather(2, sources[:, None].expand(-1, images.shape[1], -1)).view(images.shape)

    return op


_OPS: dict[str, _Op] = {
    "Identity": lambda images, _: images,
    **{name: _geometric(name) for name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")},
    "Brightness": lambda images, magnitudes: _brightness(images, 1 + magnitudes),
    "Color": lambda images, magnitudes: _saturation(images, 1 + magnitudes),
    "Contrast": lambda images, magnitudes: _contrast(images, 1 + magnitudes),
    "Sharpness": lambda images, magnitudes: _sharpness(images, 1 + magnitudes),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
}
