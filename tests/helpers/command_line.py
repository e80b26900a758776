"""What tests of the command line have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = ["dataset.train_limit=40", "dataset.test_limit=20", "clients=2", "rounds=2", "engine=inline"]
Refused = Callable[..., str]
Accepted = Callable[..., list[Any]]


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What is in a folder and when it was changed."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def one_line(text: str) -> str:
    assert text.startswith("flsplit: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text.rstrip("\n")
