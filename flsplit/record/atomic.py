"""Files that a reader finds whole or not at all, also after the machine has lost its power."""

from __future__ import annotations

import os
from pathlib import Path

import xxhash


def write(path: Path, data: bytes) -> None:
    """Put `data` in the place of whatever is at `path`: aside, to the disk, and then there in one move."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    settle(path.parent)


def settle(path: Path) -> None:
    """Bring a file, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(data: bytes | memoryview) -> str:
    """128 bits that differ where a bit of `data` does (XXH3; against accidents, not against forgery)."""
    return xxhash.xxh3_128_hexdigest(data)
