"""When a run's tables and checkpoint are written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flsplit.errors import RunFailed, foreseen
from flsplit.record.tables import Recorder
from flsplit.server.checkpoint import Checkpoints, State

SAVE_EVERY = 1.0  # seconds, so that rounds of milliseconds do not wait for files; a kill costs as much at most,
SAVE_SHARE = 100  # or so many times what saving takes, if that is more


class Saving:
    """Keeps what a run needs to go on, after a round at once or a moment later.

    Args:
        recorder: of the run's tables.
        checkpoints: of the run.
        origin: what the numbers depend on.
        notes: what is to be known about how the run came here.
    """

    def __init__(
        self, recorder: Recorder, checkpoints: Checkpoints, origin: Mapping[str, Any], notes: Sequence[str]
    ) -> None:
        self._recorder, self._checkpoints = recorder, checkpoints
        self._origin, self._notes = dict(origin), list(notes)
        self._at, self._took = float("-inf"), 0.0  # when, and how long it took; loggers may take what they like
        self._unsaved: State | None = None

    def finished(self, state: State) -> None:
        """Take what the next round starts from, and save it unless that has just been done."""
        self._unsaved = state
        if time.monotonic() - self._at >= SAVE_EVERY * max(1.0, SAVE_SHARE * self._took):
            self.save()
        else:
            self._checkpoints.hold(state)

    def save(self) -> None:
        """Bring tables and checkpoint up to the last round that was finished, and loggers then.

        Raises:
            RunFailed: if the disk takes no more.
        """
        state, self._unsaved = self._unsaved, None
        if state is not None:
            self._write(state)
        self._recorder.tell()

    def _write(self, state: State) -> None:
        began = time.monotonic()
        try:
            self._recorder.save()
            self._checkpoints.save(
                replace(state, tables=self._recorder.contents, origin=self._origin, notes=self._notes)
            )
        except OSError as error:
            if (why := foreseen(error)) is None:
                raise
            raise RunFailed(
                f"round {state.round} cannot be saved: {why}; resume goes on from the last checkpoint"
            ) from error
        self._at = time.monotonic()
        self._took = self._at - began
