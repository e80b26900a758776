"""A stream that a run can write to whatever becomes of it."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO

_GONE = (OSError, ValueError, AttributeError)  # its reader is gone, it is closed, there is none (None)


class SafeStream:
    """A text stream that swallows what cannot be written: a run outlives its terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`, with question marks for characters that the stream's encoding lacks."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self.encoding
            self.write(text.encode(encoding, "replace").decode(encoding))
        except _GONE:
            pass
        return len(text)

    def flush(self) -> None:
        """Flush, if there is still somebody to read."""
        with contextlib.suppress(*_GONE):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is an open terminal."""
        try:
            return self._stream.isatty()
        except _GONE:
            return False

    def fileno(self) -> int:
        """The stream's file descriptor."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """The stream's encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def is_terminal(self) -> bool:
        """Whether a live display makes sense: a terminal with a cursor, and no wish for plain text.

        `NO_COLOR`, `TERM=dumb` and `FLSPLIT_PROGRESS=0` are such wishes.
        """
        plain = os.environ.get("NO_COLOR") or os.environ.get("FLSPLIT_PROGRESS") == "0"
        plain = plain or os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        return self.isatty() and not plain
