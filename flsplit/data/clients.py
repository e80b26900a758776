"""Who has which samples: every client's rows of the training table, worked out once and kept in a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

Rows = tuple[np.ndarray, ...]


def save_clients(path: Path, train: Sequence[np.ndarray], held: Sequence[np.ndarray]) -> None:
    """Write the rows that each client trains on and those that it keeps for its own test."""
    np.savez(path, train=np.concatenate(train), train_bounds=_bounds(train), held=np.concatenate(held),
             held_bounds=_bounds(held))  # fmt: skip


def training_rows(path: str) -> Rows:
    """Rows that each client trains on."""
    return _load(path, "train", Path(path).stat().st_mtime_ns)


def held_out_rows(path: str) -> Rows:
    """Rows that each client keeps for its own test (`partition.holdout`)."""
    return _load(path, "held", Path(path).stat().st_mtime_ns)


def _bounds(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *(len(part) for part in parts)])


@lru_cache(maxsize=8)
def _load(path: str, name: str, written: int) -> Rows:
    """Rows of a file that was written then: another run may have used the same folder before."""
    with np.load(path) as stored:
        rows, bounds = stored[name], stored[f"{name}_bounds"]
    return tuple(rows[a:b] for a, b in pairwise(bounds))
