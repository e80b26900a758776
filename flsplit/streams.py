"""Random streams: every random choice draws from one keyed by (seed, purpose, client, round, step).

Two calls with the same key give the same stream, whatever process, engine or order they run in; streams of
different keys are independent. Nothing in flsplit draws from a global generator; what a model, or half of a compressor
or stage, draws from one, as dropout does, comes from a stream as well (`global_draws`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def _digest(seed: int, key: tuple[str | int, ...]) -> bytes:
    return hashlib.sha256(repr((seed, *key)).encode()).digest()


def torch_stream(seed: int, *key: str | int) -> torch.Generator:
    """A CPU generator for `key`, e.g. ``torch_stream(seed, "order", client, round, epoch)``."""
    return torch.Generator().manual_seed(int.from_bytes(_digest(seed, key)[:8], "little") >> 1)


def numpy_stream(seed: int, *key: str | int) -> np.random.Generator:
    """A NumPy generator for `key`."""
    return np.random.default_rng(int.from_bytes(_digest(seed, key)[:16], "little"))


def derived_seed(seed: int, *key: str | int) -> int:
    """A 31-bit seed for `key`, for a library that takes only a number or draws from its global generator."""
    return int.from_bytes(_digest(seed, key)[:4], "little") >> 1


@contextmanager
def global_draws(device: torch.device, seed: int, *key: str | int) -> Iterator[None]:
    """While it lasts, PyTorch's global generators draw from the stream of `key`; then they are as they were.

    Args:
        device: whose generator, beside the CPU's.
        seed: of the run.
        key: of the stream.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or torch.cuda.current_device()])
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(derived_seed(seed, *key))
    try:
        yield
    finally:
        for generator, state in zip(generators, before):
            generator.set_state(state)
