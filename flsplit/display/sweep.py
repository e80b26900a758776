"""What a sweep shows: a line for each job that has ended, and a table of settings that closes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from flsplit.display.stream import SafeStream
from flsplit.display.units import NOTHING, duration, human_bits, missing, percent


class Jobs:
    """Counts the jobs of a sweep as they end, and tells how long the others will take.

    Args:
        total: jobs there are; None if unknown.
        stream: where to write [stderr].
        clock: seconds that only grow, for the time left.
    """

    def __init__(
        self, total: int | None, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = SafeStream(sys.stderr if stream is None else stream)
        self._total, self._clock, self._began = total, clock, clock()
        self._ended = self._ran = 0

    def note(self, text: str) -> None:
        """Show a line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def passed_over(self) -> None:
        """Count a job that was done before; it says nothing about the time of others."""
        self._ended += 1

    def ended(self, name: str, *, accuracy: float | None, seconds: float, failed: bool = False) -> None:
        """Count a job that has run, and tell of it.

        Args:
            name: what tells it from the others.
            accuracy: of its last evaluation, 0..1.
            seconds: that it took.
            failed: whether it has come to no good end.
        """
        self._ended += 1
        self._ran += 1
        parts = [
            f"job {self._ended}"
            if self._total is None
            else f"job {self._ended:>{len(str(self._total))}}/{self._total}",
            "failed" if failed else f"accuracy {percent(accuracy)}",
            f"time {duration(seconds)}",
        ]
        if self._total is not None:  # jobs may run side by side: what counts is how often one ends
            parts.append(f"left {duration((self._clock() - self._began) / self._ran * (self._total - self._ended))}")
        self.note("  ".join([*parts, name]))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A setting: means over those of its seeds that have come to a good end, if any."""

    name: str
    seeds: int
    well: int
    accuracy: tuple[float, float | None] | None
    bits: float | None
    seconds: float | None


def table_of_settings(
    rows: Sequence[Row], *, title: str, after: Sequence[str] = (), stream: TextIO | None = None
) -> None:
    """Show what a sweep came to.

    Args:
        rows: a setting each.
        title: a heading.
        after: lines below the table.
        stream: where to write [stdout].
    """
    head = ("setting", "seeds", "test accuracy", "sent, with models", "time")
    cells = [head, *(_cells(row) for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in cells]
    if any(row.well > 1 for row in rows):
        lines.append("accuracy after the last round with its 95% interval, bits and time: means over seeds")
    safe = SafeStream(sys.stdout if stream is None else stream)
    safe.write("\n".join([title, *(f"  {line}" for line in (*lines, *after))]) + "\n")
    safe.flush()


def _cells(row: Row) -> tuple[str, ...]:
    accuracy = NOTHING
    if row.accuracy is not None:
        mean, half = row.accuracy
        accuracy = percent(mean) + ("" if half is None or missing(half) else f" ± {100 * half:.1f}")
    bits, seconds = row.bits, row.seconds
    seeds = str(row.seeds) if row.well == row.seeds else f"{row.well} of {row.seeds}"
    return (
        row.name, seeds, accuracy, NOTHING if bits is None else human_bits(round(bits)),
        NOTHING if seconds is None else duration(seconds),
    )  # fmt: skip
