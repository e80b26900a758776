"""Vectors that clients leave from round to round, as .npy files.

A file is written over without being cut to nothing first, which keeps its memory: a new file costs several times as
much. Where a new one is needed, it can be made while its client trains.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

_HEADER = 128  # bytes of an .npy file before its numbers
_ZEROS = memoryview(bytes(1 << 20))
_beside = ThreadPoolExecutor(1)


def read(path: str) -> torch.Tensor:
    """The vector in a file; its memory is the file's, which a later `write` to it changes."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def write(path: str, values: torch.Tensor) -> None:
    """Write a vector into a file, over what that holds, in one piece."""
    array = values.numpy()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
        file.truncate()


def make_room(path: str, floats: int) -> None:
    """Have a file of so many fp32 numbers, unless there is one, while the caller goes on.

    Nothing waits for it. It is made under the name `path` + `.room` and gets its own in one move, unless a `write` was
    faster; so nobody meets half a file, and no written file is touched.
    """
    if not os.access(path, os.F_OK):
        _beside.submit(_make_room, path, _HEADER + 4 * floats)


def _make_room(path: str, size: int) -> None:
    room = f"{path}.room"
    with suppress(OSError):  # `write` will meet what is wrong
        file = os.open(room, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            while size > 0:
                size -= os.write(file, _ZEROS[:size])
        finally:
            os.close(file)
        os.link(room, path)
    with suppress(OSError):
        Path(room).unlink()
