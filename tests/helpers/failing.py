"""A compressor that cannot stand the digit 3; tests give it by its dotted path."""

import torch
from torch import Tensor

from compressors.base import Base
from compressors.interface import Payload


class Failing(Base):
    """Like `base`, but raises for a batch with a 3 in it."""

    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        if (y == 3).any():
            raise RuntimeError("there is a 3\nand more")
        return super().compress(z, y, s, generator=generator)
