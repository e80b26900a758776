"""Vectors that clients leave from round to round, as .npy files that carry the digest of their content in their name.

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
import xxhash

_HEADER = 128  # bytes of an .npy file before its numbers
_ZEROS = memoryview(bytes(1 << 20))
_beside = ThreadPoolExecutor(1)


def read(path: str) -> torch.Tensor:
    """The vector in a file; its memory is the file's, which a later `write` to it changes."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def write(path: str, values: torch.Tensor) -> str:
    """Write a vector into a file, over what that holds, in one piece; then give it its name.

    Args:
        path: `NAME.npy`, where there may be memory for it.
        values: the vector.

    Returns:
        `NAME.DIGEST.npy`, where it is now.
    """
    array = values.numpy()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
        file.truncate()
    final = f"{path.removesuffix('.npy')}.{_digest(array.data)}.npy"
    os.replace(path, final)  # noqa: PTH105 - one of these for each client and round
    return final


def check(path: str) -> None:
    """Whether a file is what its writer left.

    Raises:
        ValueError: if it is not.
        OSError: if it is not there.
    """
    data = memoryview(Path(path).read_bytes())
    if Path(path).name.split(".")[-2] != _digest(data[_HEADER:]):
        raise ValueError(f"{path} is damaged")
    try:
        size = np.load(path, mmap_mode="r", allow_pickle=False).nbytes
    except OSError:
        raise
    except Exception as error:  # NumPy reads the header as Python, which may raise anything
        raise ValueError(f"{path} is damaged") from error
    if size != len(data) - _HEADER:
        raise ValueError(f"{path} is damaged")


def _digest(data: memoryview) -> str:
    return xxhash.xxh3_64_hexdigest(data)


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
