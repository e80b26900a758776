"""What runs have left for the runs after them, while it is kept (`flsplit.engine.kept`): processes that do nothing."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Protocol

import ray

from flsplit.engine.session import connection


class Idle(Protocol):
    """A process that waits."""

    def end(self) -> None:
        """End it, and give back what it held."""


_left: dict[tuple[str, Hashable], list[Idle]] = {}  # by connection to Ray and kind


def leave(kind: Hashable, processes: Iterable[Idle]) -> None:
    """Leave processes that are alike in what they can be used for."""
    _left.setdefault((connection(), kind), []).extend(processes)


def take(kind: Hashable) -> list[Idle]:
    """The processes of a kind that have been left."""
    return _left.pop((connection(), kind), [])


def end() -> None:
    """End all that have been left; a Ray that is gone has taken its own with it."""
    if ray.is_initialized():
        for (of, _), processes in _left.items():
            for process in processes if of == connection() else ():
                process.end()
    _left.clear()
