"""Runs that end in a round of one's choice."""

from __future__ import annotations

from typing import Any

import pytest

from flsplit.server.shown import Shown


def end_in(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """A round ends with an error as it begins; 0: the engine does not start."""

    def begin(self: Shown, now: int, *_: Any) -> None:
        if now == number:
            raise error

    def start(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Shown, "begin", begin)
    if number == 0:
        monkeypatch.setattr("flsplit.engine.inline.run", start)
