"""Decoding, augmenting and resizing images of many sizes: the per-image work, off the training thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from joblib.externals.loky import get_reusable_executor
from PIL import Image

from flsplit.data import augment as transform
from flsplit.data.images import decode

_IDLE = 300  # seconds after which processes without work end


@dataclass(frozen=True)
class Piece:
    """Some images of one batch.

    Attributes:
        encoded: the images as they lie in the table.
        draws: their random numbers, with augmentation.
        size: side of the images to make, pixels.
    """

    encoded: list[bytes]
    draws: transform.Draws | None
    size: int


def prepare(piece: Piece) -> np.ndarray:
    """(n, size, size, 3) uint8. Uses NumPy and Pillow only: torch would start threads of its own."""
    images = []
    for index, encoded in enumerate(piece.encoded):
        image = decode(encoded)
        if piece.draws is not None:
            image = transform.paper(image, piece.draws, index)
        images.append(np.asarray(image.resize((piece.size, piece.size), Image.Resampling.BILINEAR)))
    return np.stack(images)


@contextmanager
def background(workers: int) -> Iterator[Executor]:
    """Where `prepare` runs.

    One worker is a thread that ends with the block. Several are processes, since Pillow holds Python's lock for much
    of its work; they are started once and stay for the next block.
    """
    if workers > 1:
        yield get_reusable_executor(max_workers=workers, timeout=_IDLE)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="flsplit-data")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
