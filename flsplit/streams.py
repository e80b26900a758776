"""Random streams: every random choice draws from one keyed by (seed, purpose, client, round, step).

Two calls with the same key give the same stream, whatever process, engine or order they run in; streams of
different keys are independent. Nothing in flsplit draws from a global generator.
"""

from __future__ import annotations

import hashlib

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
