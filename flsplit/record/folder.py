"""The folder of a run: which one, and whether it can be made."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flsplit.errors import UserError


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
        if not resumed and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
            raise UserError(f"out={folder} {_holds(folder)}")
        place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UserError(f"out={folder} cannot be made: {error.strerror}") from error
    if not place.is_dir():
        raise UserError(f"out={folder} cannot be made: {place} is not a folder; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"out={folder} cannot be made: {place} is not writable; choose another place")
    return folder


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
