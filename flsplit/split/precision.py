"""The precision of forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def autocast(device: str, precision: str) -> Iterator[None]:
    """Context of a forward pass; with bf16 on the CPU, attention is plain matrix products in it.

    There the backward pass of torch's fused bf16 attention takes two fifths of a DeiT-T step at 96 pixels.

    Args:
        device: `cpu` or `cuda`.
        precision: `fp32` (nothing changes) or `bf16` (torch's autocast).
    """
    if precision == "fp32":
        yield
        return
    attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    # Every weight is cast once a pass, so a cache of them saves nothing; CUDA graphs cannot be made with one.
    with torch.autocast(device, dtype=torch.bfloat16, cache_enabled=device == "cpu"), attention:
        yield
