"""Where tables are kept, how they are named, and how one is built without ever being half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import xxhash

from flsplit.data.errors import DataError

_DIGEST = "digest"
_STALE_SECONDS = 24 * 3600


def root() -> Path:
    """`$FLSPLIT_CACHE`, or `flsplit` in the user's cache folder."""
    if own := os.environ.get("FLSPLIT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "flsplit"


def fingerprint(**content: object) -> str:
    """A short name for `content` (anything that JSON can hold): equal for equal content only."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def listing(files: list[Path], base: Path) -> list[tuple[str, int, int, int, int]]:
    """(name, relative to `base` if in it, bytes, inode, times of change of content and of inode in ns) of every file.

    No other content can stand behind the same of these: whoever puts a file in another's place, or writes into it,
    changes the time of its inode, which cannot be set, even where its size and the time of its content are kept, as
    unpacking an archive does.
    """
    names = [(file.relative_to(base) if file.is_relative_to(base) else file).as_posix() for file in files]
    stats = [file.stat() for file in files]
    return [(name, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in zip(names, stats)]


def digest_of(folder: Path) -> str:
    """A digest of the content of a folder's files and of their names, worked out once and kept in it."""
    kept = folder / _DIGEST
    if kept.is_file():
        return kept.read_text()
    state = xxhash.xxh3_128()
    for file in sorted(path for path in folder.iterdir() if not path.name.startswith(_DIGEST)):
        state.update(f"{file.name}:{file.stat().st_size}:".encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                state.update(block)
    with contextlib.suppress(OSError):  # a cache that may only be read
        part = folder / f"{_DIGEST}.{uuid.uuid4().hex}"
        part.write_text(state.hexdigest())
        part.replace(kept)
    return state.hexdigest()


def build_once(final: Path, write: Callable[[Path], None]) -> None:
    """Makes the folder `final` with ``write(folder)``, unless it is there.

    It is written under a hidden name beside and renamed when complete; of several processes that build at
    once the first to finish wins, and all see the same content.

    Raises:
        DataError: The cache cannot be written.
    """
    if final.is_dir():
        return
    _remove_stale(final)
    temporary = final.parent / f".{final.name}.{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {final.parent} cannot be written ({error.strerror}); name another one "
            "with the environment variable FLSPLIT_CACHE"
        ) from error
    try:
        write(temporary)
        try:
            temporary.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(final: Path) -> None:
    """Removes what builders that were killed left behind."""
    for folder in final.parent.glob(f".{final.name}.*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
