"""The folder of a run: which one, and whether it can be made."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flsplit.errors import UserError

LOCK = ".lock"  # of a run that is going on: it names its process


def folder_for(out: str | None, *, resumed: bool) -> Path:
    """The run's folder, not yet made.

    Args:
        out: where it is to be; None for a new one named after the time.
        resumed: whether a run is there that goes on.

    Raises:
        UserError: if there is something in it already, or it cannot be made.
    """
    folder = _unused() if out is None else Path(out)
    try:
        if not resumed and (folder.is_file() or _filled(folder)):
            raise UserError(f"out={folder} {_holds(folder)}")
        for above in folder.absolute().parents:
            if not resumed and (above / "config.yaml").is_file() and (above / "checkpoint").is_dir():
                raise UserError(f"out={folder} lies in {above}, which holds a run; choose a folder outside of it")
        place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UserError(f"out={folder} cannot be made: {error.strerror}") from error
    if not place.is_dir():
        raise UserError(f"out={folder} cannot be made: {place} is not a folder; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"out={folder} cannot be made: {place} is not writable; choose another place")
    return folder


@contextmanager
def alone_in(folder: Path, *, resumed: bool) -> Iterator[None]:
    """Keep every other run out of a folder, which is made if need be, as long as this process is there.

    Raises:
        UserError: if another process runs in it, or has laid a run out in it meanwhile, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(f"out={folder} is in use by {_owner(folder)}; choose another folder, or wait for it") from error
    except OSError as error:
        raise UserError(f"out={folder} cannot be made: {error.strerror}") from error
    try:
        if not resumed and (folder / "config.yaml").exists():
            raise UserError(f"out={folder} {_holds(folder)}")
        (folder / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # before it is free: who takes a lock looks whether its file is there
        lock.release()


def is_left(folder: Path) -> bool:
    """Whether no process runs in a folder: no lock is there, or that of a process of this machine which has gone.

    Of a process that was killed on another machine, nobody can tell.
    """
    try:
        named = re.fullmatch(r"process (\d+) on (.+)", (folder / LOCK).read_text())
    except FileNotFoundError:
        return True
    if named is None or named[2] != socket.gethostname():
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is somebody else's
        pass
    return False


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())


def _owner(folder: Path) -> str:
    try:
        return (folder / LOCK).read_text() or "another process"
    except OSError:
        return "another process"


def _unused() -> Path:
    base = Path("outputs") / time.strftime("%Y-%m-%d") / time.strftime("%H-%M-%S")
    out, number = base, 1
    while out.exists():
        number += 1
        out = base.with_name(f"{base.name}-{number}")
    return out


def _holds(out: Path) -> str:
    if out.is_file():
        return "is a file; choose a new folder"
    if (out / "config.yaml").exists():
        return f"already holds a run; choose a new folder, or continue it with resume={out}"
    return "already holds something; choose a new folder"
