"""The paper's transform for a batch of images of one size, on any device: what `augment.paper` does, to the bit.

Images that meet operations of one kind are changed together, in place. Legend: B images, n of them of a kind, C = 3
channels, H x W pixels. Levels are whole numbers from 0 to 255, in float32 from the first operation to the last. All
arithmetic is Pillow's: blending in float32, statistics in integers, and grey in fixed point, whose integers are below
2^24, so that float32 holds them exactly.
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

# Changes levels (n, 3, H, W) in place; takes each image's operation, by its name, and magnitude, float64, (n,) both.
_Change = Callable[[Tensor, np.ndarray, np.ndarray], None]

_JITTERS = np.array(["Brightness", "Contrast", "Color"])
_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def paper_batch(images: Tensor, draws: Draws) -> Tensor:
    """RandAugment and colour jitter with the given random numbers.

    Args:
        images: (B, 3, H, W) uint8.
        draws: For B images.

    Returns:
        (B, 3, H, W) uint8.
    """
    table = operations(*images.shape[-2:])
    names = np.array([name for name, _, _ in table])
    magnitudes = np.array([magnitude for _, magnitude, _ in table])
    signed = np.array([signed for _, _, signed in table])
    levels, place = images, np.arange(len(images))  # place[i]: which image is at i now
    for ops, negative in zip(draws.ops.T, draws.negative.T):
        values = magnitudes[ops] * np.where(signed[ops] & negative, -1.0, 1.0)
        levels, place = _by_kind(levels, place, names[ops], values)
    for kinds in draws.order.T[:, place]:
        _blend(levels, _JITTERS[kinds], draws.factors[place, kinds])
    return levels.to(torch.uint8).index_select(0, put(np.argsort(place), images.device))


def _by_kind(levels: Tensor, place: np.ndarray, names: np.ndarray, values: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Gives image i the operation `names[i]` with `values[i]`; brings images of one kind next to each other for it."""
    kinds = np.array([_KIND_OF[name] for name in names.tolist()])[place]
    order = np.argsort(kinds, kind="stable")
    levels, place = levels.index_select(0, put(order, levels.device)).to(torch.float32), place[order]
    present, starts = np.unique(kinds[order], return_index=True)
    for kind, start, end in zip(present.tolist(), starts.tolist(), [*starts[1:].tolist(), len(place)]):
        of_kind = place[start:end]
        _KINDS[kind][1](levels[start:end], names[of_kind], values[of_kind])
    return levels, place


def _blend(levels: Tensor, names: np.ndarray, factors: np.ndarray) -> None:
    """Brightness, contrast and saturation: moves images away from black, from their mean grey, from their own grey."""
    grey = _grey(levels)
    mean = grey.sum(dim=3, keepdim=True).double().sum(dim=2, keepdim=True) / grey[0].numel()
    of_grey, of_mean = (_column(names == name, levels) for name in ("Color", "Contrast"))
    _away_from(grey.mul_(of_grey).add_((mean + 0.5).floor().float() * of_mean), levels, factors)


def _away_from(plain: Tensor, levels: Tensor, factors: np.ndarray) -> None:
    """To `plain` (factor 0), to where they are (1), between or beyond; cut off to whole levels."""
    levels.sub_(plain).mul_(_column(factors, levels)).add_(plain).clamp_(0, 255).floor_()


def _grey(levels: Tensor) -> Tensor:
    """(n, 1, H, W) luma, ITU-R 601-2, in Pillow's 16-bit fixed point."""
    red, green, blue = levels.split(1, dim=1)
    luma = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471)
    return luma.add_(0x8000).mul_(2**-16).floor_()


def _column(values: np.ndarray, levels: Tensor) -> Tensor:
    """One float32 an image, (n, 1, 1, 1)."""
    return put(values.astype(np.float32), levels.device).view(-1, 1, 1, 1)


def _leave(levels: Tensor, names: np.ndarray, magnitudes: np.ndarray) -> None:
    pass


def _enhance(levels: Tensor, names: np.ndarray, magnitudes: np.ndarray) -> None:
    _blend(levels, names, 1 + magnitudes)


def _sharpness(levels: Tensor, names: np.ndarray, magnitudes: np.ndarray) -> None:
    """The plain image is smoothed by a 3 x 3 kernel of ones with 5 in the middle, except at the border."""
    rows = levels[..., :-2, :] + levels[..., 1:-1, :] + levels[..., 2:, :]
    smooth = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * levels[..., 1:-1, 1:-1]
    plain = levels.clone()
    plain[..., 1:-1, 1:-1] = (2 * smooth + 13).div_(26).floor_()
    _away_from(plain, levels, 1 + magnitudes)


def _posterize(levels: Tensor, names: np.ndarray, bits: np.ndarray) -> None:
    step = _column(2 ** (8 - bits), levels)
    levels.div_(step).floor_().mul_(step)


def _solarize(levels: Tensor, names: np.ndarray, thresholds: np.ndarray) -> None:
    bright = levels >= _column(np.ceil(thresholds), levels)
    levels.copy_(torch.where(bright, 255 - levels, levels))


def _auto_contrast(levels: Tensor, names: np.ndarray, magnitudes: np.ndarray) -> None:
    low, high = levels.amin((2, 3), keepdim=True).double(), levels.amax((2, 3), keepdim=True).double()
    scale = torch.full_like(low, 255.0).div_((high - low).clamp_(min=1))
    stretched = (levels * scale + -low * scale).clamp_(0, 255).floor_()
    levels.copy_(torch.where(high > low, stretched, levels))


def _equalize(levels: Tensor, names: np.ndarray, magnitudes: np.ndarray) -> None:
    pixels = levels.flatten(0, 1).flatten(1).long()  # (n C, H W)
    histogram = pixels.new_zeros(len(pixels), 256).scatter_add_(1, pixels, torch.ones_like(pixels))
    brightest = histogram.gather(1, pixels.amax(1, keepdim=True))
    step = (pixels.shape[1] - brightest) // 255
    below = histogram.cumsum(1) - histogram
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=levels.device))
    levels.copy_(table.gather(1, pixels).view(levels.shape))


def _move(levels: Tensor, names: np.ndarray, magnitudes: np.ndarray) -> None:
    """Geometric operations: every pixel takes the level of another, or black."""
    numbers = [_GEOMETRIC.index(name) for name in names.tolist()]
    rows = put(2 * np.array(numbers) + (magnitudes < 0), levels.device)
    sources = _sources(*levels.shape[-2:], levels.device).index_select(0, rows)
    pixels = F.pad(levels.flatten(2), (1, 0))
    levels.copy_(pixels.gather(2, sources[:, None].expand(-1, levels.shape[1], -1)).view(levels.shape))


@cache
def _sources(height: int, width: int, device: torch.device) -> Tensor:
    """(10, H W) which pixel each pixel takes, from 1; 0 is the black outside. Two rows an operation: its two signs.

    torchvision and Pillow say so themselves: they transform an image of pixel numbers.
    """
    numbers = Image.fromarray(np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width))
    magnitudes = {name: magnitude for name, magnitude, _ in operations(height, width)}
    moved = [
        np.asarray(_apply_op(numbers, name, sign * magnitudes[name], InterpolationMode.NEAREST, None)).ravel()
        for name in _GEOMETRIC
        for sign in (1, -1)
    ]
    return torch.from_numpy(np.stack(moved).astype(np.int64)).to(device)


_KINDS: tuple[tuple[tuple[str, ...], _Change], ...] = (
    (("Identity",), _leave),
    (_GEOMETRIC, _move),
    (("Brightness", "Color", "Contrast"), _enhance),
    (("Sharpness",), _sharpness),
    (("Posterize",), _posterize),
    (("Solarize",), _solarize),
    (("AutoContrast",), _auto_contrast),
    (("Equalize",), _equalize),
)
_KIND_OF = {name: number for number, (names, _) in enumerate(_KINDS) for name in names}
