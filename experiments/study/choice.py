"""Which of a study's runs are wanted: told by what the runs themselves differ in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from experiments.point import Point
from flsplit.errors import UserError

KEYS: dict[str, Callable[[Point], str | float | None]] = {
    "clients": lambda point: point.clients,
    "alphas": lambda point: point.alpha,
    "strategies": lambda point: point.strategy,
    "methods": lambda point: point.method,
}
_OF_SEVERAL = ("alphas", "strategies")  # one client has neither, and stays whichever are wanted


def chosen(name: str, points: Sequence[Point], wanted: Mapping[str, str | None]) -> list[Point]:
    """Those runs of a study that have a wanted value everywhere, in their order.

    Args:
        name: of the study.
        points: all its runs.
        wanted: `A,B` for a key of `KEYS`; None for all.

    Raises:
        UserError: if a value is in none of the runs, or none has all that is wanted.
    """
    found = list(points)
    for key, text in wanted.items():
        if text is not None:
            values = _values(name, key, text, points)
            found = [point for point in found if _exempt(key, point) or _told(KEYS[key](point)) in values]
    if not found:
        raise UserError(f"{name} has nothing of this choice")
    return found


def _values(name: str, key: str, text: str, points: Sequence[Point]) -> list[str]:
    there = sorted({value for point in points if not _exempt(key, point) for value in [KEYS[key](point)] if value})
    if not there:
        raise UserError(f"--{key}: {name} has no choice of them")
    known = list(map(_told, there))
    for word in text.split(","):
        if word not in known:
            raise UserError(f"--{key}: must be of {', '.join(known)} in {name}, got {word!r}")
    return text.split(",")


def _exempt(key: str, point: Point) -> bool:
    return key in _OF_SEVERAL and point.clients == 1


def _told(value: str | float | None) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
