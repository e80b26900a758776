"""A compressor that ends the program at the digit 3; tests give it by its dotted path."""

import torch
from torch import Tensor

from compressors.base import Base
from compressors.interface import BatchShape, Payload


class Leaving(Base):
    """Like `base`, but raises `SystemExit` for a batch with a 3 in it: at the client, or at the server."""

    def __init__(self, *, at_eval: bool = False, at_server: bool = False) -> None:
        super().__init__(at_eval=at_eval)
        self._at_server = at_server

    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        if not self._at_server and (y == 3).any():
            raise SystemExit(0)
        return super().compress(z, y, s, generator=generator)

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        z, y = super().decompress(payload, shape)
        if self._at_server and (y == 3).any():
            raise SystemExit(0)
        return z, y
