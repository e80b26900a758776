"""The paper's training transform, with every random number drawn beforehand.

Two operations of RandAugment at magnitude 9 (Cubuk et al. 2020, arXiv 1909.13719) on the image in its native
size, then brightness, contrast and saturation jitter of 0.4 in random order. The operations are torchvision's
own; `augment_batch` has the same for images of one size, many at a time. Resizing, flipping and normalising
follow in the pipeline, for a whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

NAMES = ("none", "paper")
OPS, MAGNITUDE, BINS = 2, 9, 31
JITTER = 0.4
_JITTERS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step, for B images.

    Attributes:
        ops: (B, 2) int64, numbers of RandAugment's operations.
        negative: (B, 2) bool, whether an operation that has a sign takes the negative one.
        order: (B, 3) int64, in which order brightness (0), contrast (1) and saturation (2) are changed.
        factors: (B, 3) float64, by how much brightness, contrast and saturation change.
        flip: (B,) bool, whether the image is mirrored.
    """

    ops: np.ndarray
    negative: np.ndarray
    order: np.ndarray
    factors: np.ndarray
    flip: np.ndarray

    def __getitem__(self, part: slice) -> Draws:
        """The numbers of some of the images."""
        return Draws(*(getattr(self, field.name)[part] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[Draws]) -> Draws:
        """The numbers of several steps, one after another."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def draw(batch: int, generator: torch.Generator) -> Draws:
    """Draws for `batch` images, always in this order: operations, signs, jitter order, factors, flips."""
    ops = torch.randint(len(operations(32, 32)), (batch, OPS), generator=generator)
    negative = torch.randint(2, (batch, OPS), generator=generator)
    order = torch.rand(batch, len(_JITTERS), generator=generator, dtype=torch.float64).argsort(dim=1)
    uniform = torch.rand(batch, len(_JITTERS), generator=generator, dtype=torch.float64)
    flip = torch.rand(batch, generator=generator) < 0.5
    return Draws(
        ops.numpy(),
        negative.bool().numpy(),
        order.numpy(),
        (1 - JITTER + 2 * JITTER * uniform).numpy(),
        flip.numpy(),
    )


@cache
def operations(height: int, width: int) -> tuple[tuple[str, float, bool], ...]:
    """RandAugment's operations for images of this size: name, magnitude, whether it has a sign."""
    space = RandAugment(OPS, MAGNITUDE, BINS)._augmentation_space(BINS, (height, width))
    return tuple(
        (name, float(values[MAGNITUDE]) if values.ndim else 0.0, signed) for name, (values, signed) in space.items()
    )


def paper(image: Image.Image, draws: Draws, index: int) -> Image.Image:
    """RandAugment and colour jitter of an RGB image with the random numbers of image `index` of the batch."""
    table = operations(image.height, image.width)
    for op, negative in zip(draws.ops[index], draws.negative[index]):
        name, magnitude, signed = table[op]
        image = _apply_op(
            image, name, -magnitude if signed and negative else magnitude, InterpolationMode.NEAREST, None
        )
    for kind in draws.order[index]:
        image = _JITTERS[kind](image, float(draws.factors[index, kind]))
    return image
