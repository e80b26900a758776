"""Files that a reader finds whole or not at all, also after the machine has lost its power."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import xxhash

_AT_ONCE = 4  # files: a disk takes several in little more time than one


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


class Settling:
    """Files on their way to the disk, while the caller goes on.

    A disk takes milliseconds for a file; a run of many clients leaves one for each, and most stay for many rounds.
    """

    def __init__(self) -> None:
        self._begun: dict[str, Future[None]] = {}
        self._beside = ThreadPoolExecutor(_AT_ONCE)

    def begin(self, paths: Iterable[str]) -> None:
        """Start with those that have not been begun."""
        for path in sorted(set(paths) - self._begun.keys()):
            self._begun[path] = self._beside.submit(settle, Path(path))

    def forget(self, needed: set[str]) -> None:
        """Only these will be asked for; another file may get one of the other names."""
        self._begun = {path: settled for path, settled in self._begun.items() if path in needed}

    def finish(self, paths: Iterable[str]) -> None:
        """Wait until these are on the disk.

        Raises:
            OSError: if one cannot be brought there.
        """
        paths = set(paths)
        self.begin(paths)
        for path in sorted(paths):
            self._begun[path].result()


def digest(data: bytes | memoryview) -> str:
    """128 bits that differ where a bit of `data` does (XXH3; against accidents, not against forgery)."""
    return xxhash.xxh3_128_hexdigest(data)
