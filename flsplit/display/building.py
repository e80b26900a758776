"""A bar while the tables of a data set are built, which is done once and may take long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from flsplit.display.stream import SafeStream

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LONG = 1.0  # seconds that it may take without being shown
_EVERY = 0.2  # seconds


@contextmanager
def building(
    *, quiet: bool = False, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[str, int, int], None]]:
    """Something to call with a table's name, how many of its images are done, and how many it has.

    It costs nothing to speak of, and shows nothing where there is no terminal.

    Args:
        quiet: show nothing at all.
        stream: where to write [stderr].
        clock: seconds that only grow.
    """
    safe = SafeStream(sys.stderr if stream is None else stream)
    bar = _Bar(safe, clock)
    try:
        yield _nothing if quiet or not safe.is_terminal else bar.tell
    finally:
        bar.stop()


def _nothing(name: str, done: int, total: int) -> None:
    pass


class _Bar:
    def __init__(self, stream: SafeStream, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._began: float | None = None
        self._shown = 0.0
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def tell(self, name: str, done: int, total: int) -> None:
        now = self._clock()
        if self._began is None:
            self._began = now
        if now - self._began < _LONG or (now - self._shown < _EVERY and done < total):
            return
        self._shown = now
        if self._progress is None:
            self._progress = self._start()
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(f"building the table of {name} images", total=total)
        self._progress.update(self._tasks[name], completed=done)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _start(self) -> Progress:
        from rich.console import Console  # rich takes a moment; only a terminal waits for it
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=cast(TextIO, self._stream), force_terminal=True, force_jupyter=False, highlight=False)
        columns: list[Any] = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        ]
        progress = Progress(*columns, console=console, transient=True)
        progress.start()
        return progress
