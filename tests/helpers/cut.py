"""Runs that are cut off after a round, as by Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flsplit.server.checkpoint import State
from flsplit.server.saving import Saving


@contextmanager
def cut_after(round: int) -> Iterator[None]:
    """While it lasts, whatever runs is interrupted when it has finished `round`."""
    real = Saving.finished

    def finished(saving: Saving, state: State) -> None:
        real(saving, state)
        if state.round == round:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saving, "finished", finished)
        yield
