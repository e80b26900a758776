"""Shared inputs: random batches on every device there is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

MakeBatch = Callable[..., tuple[Tensor, Tensor, Tensor]]


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_batch() -> MakeBatch:
    """z (B, N, D) that asks for gradients, y (B,) and s (B, N) like softmaxed attention."""

    def make(
        batch: int, tokens: int, width: int, *, classes: int = 10, seed: int = 0, device: str = "cpu"
    ) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(batch, tokens, width, generator=generator).to(device).requires_grad_()
        y = torch.randint(classes, (batch,), generator=generator).to(device)
        s = torch.randn(batch, tokens, generator=generator).softmax(1).to(device)
        return z, y, s

    return make
