"""The folder of a run: which one, and whether it can be made."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flsplit.config import Config
from flsplit.errors import UserError


def folder_for(config: Config) -> Path:
    """The run's folder, not yet made: `out`, or a new one named after the time.

    Raises:
        UserError: if there is something in it already, or it cannot be made.
    """
    out = _unused() if config.out is None else Path(config.out)
    try:
        if config.resume is None and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
            raise UserError(f"out={out} {_holds(out)}")
        place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    except OSError as error:
        raise UserError(f"out={out} cannot be made: {error.strerror}") from error
    if not place.is_dir():
        raise UserError(f"out={out} cannot be made: {place} is not a folder; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"out={out} cannot be made: {place} is not writable; choose another place")
    return out


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
