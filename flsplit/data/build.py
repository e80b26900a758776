"""Streams the images of a source into a table."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from flsplit.data import images
from flsplit.data.errors import DataError
from flsplit.data.ordered import ordered_map
from flsplit.data.sources.reader import Split
from flsplit.data.table import TableWriter

_AHEAD = 64  # images in memory at once


Tell = Callable[[str, int, int], None]  # a table's name, images done, images of it


def write_table(
    folder: Path, name: str, split: Split, rows: np.ndarray, max_side: int | None, tell: Tell | None = None,
    bits: int | None = None,
) -> int | None:  # fmt: skip
    """Writes the `rows` of `split` as the table `name` in `folder`.

    Every image is decoded once, so that a broken one shows before training starts. Grey images with room for more than
    8 bits become 8-bit PNG files; whether they are scaled from 16 is one answer for all of them, so that a dark one
    beside others stays dark.

    Args:
        folder: An existing folder.
        name: `train` or `test`.
        split: Where labels and images come from.
        rows: Ascending row numbers.
        max_side: Longest side in pixels; larger images are shrunk.
        tell: Called after each image.
        bits: That such grey images are scaled from, 8 or 16; None: 16 if one of them needs more than 8.

    Returns:
        `bits` as they turned out; None where there are no such images.

    Raises:
        DataError: An image cannot be read; the line names it.
    """
    used = _write(folder, name, split, rows, max_side, tell, bits)
    if bits is None and len(used) > 1:
        _write(folder, name, split, rows, max_side, tell, max(used))
    return bits or max(used, default=None)


def _write(
    folder: Path, name: str, split: Split, rows: np.ndarray, max_side: int | None, tell: Tell | None, bits: int | None
) -> set[int]:
    """The same with every image scaled from the bits that it needs if `bits` is None; returns which these were."""
    used: set[int] = set()

    def prepare(item: tuple[int, bytes | np.ndarray]) -> tuple[bytes, np.ndarray]:
        row, image = item
        if isinstance(image, np.ndarray):
            return b"", image
        try:
            opened = images.upright(image)
            converted = opened.convert(split.mode) if split.mode is not None else opened
            decoded = images.rgb(converted, bits)
            if (needed := images.used_bits(converted)) is not None:
                used.add(needed)
            if needed is not None or converted.mode != opened.mode:
                image = images.png(decoded)
            if max_side is not None:
                image, decoded = images.shrink(image, decoded, max_side)
        except Exception as error:  # Pillow has no common exception for broken files
            reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
            raise DataError(f"{split.where(row)} cannot be read as an image ({reason})") from error
        return image, np.asarray(decoded)

    writer = TableWriter(folder, name, split.labels[rows], {key: values[rows] for key, values in split.columns.items()})
    threads = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    stream = zip((int(row) for row in rows), split.read(rows))
    with ThreadPoolExecutor(threads, thread_name_prefix="flsplit-data") as pool:
        made = ordered_map(prepare, stream, pool=pool, ahead=_AHEAD)
        for done, (encoded, pixels) in enumerate(made, start=1):
            writer.add(encoded, pixels)
            if tell is not None:
                tell(name, done, len(rows))
    writer.close()
    return used
