"""What is the user's to mend, what ends a run, and where the traceback of anything else is kept."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb
from typing import Any

LOG = "error.log"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class UserError(ValueError):
    """A mistake in what the user asked for: one line that names the key, what is wrong and what would be right."""


class RunFailed(RuntimeError):
    """The run cannot go on; what it has finished stays in its folder.

    Args:
        text: one line that says why.
        diverged: whether it is because numbers of the training are not finite, which another start would not change.
    """

    def __init__(self, text: str, *, diverged: bool = False) -> None:
        super().__init__(text)
        self.diverged = diverged


class ExitRaised(RuntimeError):
    """A plug-in, or a library, has raised `SystemExit`: an error like any other, as the program is not its to end."""


@contextmanager
def no_exit() -> Iterator[None]:
    """Around what calls plug-ins, or decorating it: their `SystemExit` is an error. A signal's handler may end us.

    Raises:
        ExitRaised: in the place of `SystemExit`.
    """
    try:
        yield
    except SystemExit as leave:
        if _is_of_a_signal(leave):
            raise
        raise ExitRaised(f"a plug-in or a library has raised {leave!r}") from leave


def _is_of_a_signal(leave: SystemExit) -> bool:
    """Whether a handler has raised it: of the caller's own, or Ray's of SIGTERM."""
    codes = [getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()]
    return any(frame.f_code in codes for frame, _ in walk_tb(leave.__traceback__))


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean X?` for the closest of `words`, or nothing."""
    close = get_close_matches(word.lower(), list(words), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def nearest_path(typed: Path | str) -> str:
    """`; did you mean PATH?` for what lies where a path that does not exist leads to, under a name like it."""
    path = Path(typed)
    for folder, name in zip(path.parents, reversed(path.parts)):
        try:
            if not folder.expanduser().is_dir():
                continue
            if (folder / name).expanduser().exists():  # it is something else that is wrong
                return ""
            close = get_close_matches(name, [entry.name for entry in folder.expanduser().iterdir()], n=1, cutoff=0.7)
        except (OSError, RuntimeError):  # one that cannot be read, or nobody's home
            return ""
        if not close:
            return ""
        found = folder / close[0]
        whole = found / path.relative_to(folder / name)
        return f"; did you mean {whole if whole.expanduser().exists() else found}?"
    return ""


def shown(value: Any) -> str:
    """A value as the user types it, cut where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


@contextmanager
def options_of_the_user() -> Iterator[None]:
    """Around a plug-in that is made from, or asked about, the user's options: its `ValueError` is the user's mistake.

    Nowhere else is one: a `ValueError` of PyTorch's, or of a line of ours that is wrong, is for us to mend.

    Raises:
        UserError: with the text of the `ValueError`.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def foreseen(error: BaseException) -> str | None:
    """One line about an error whose cause lies outside the program, and what to do; None for any other."""
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" at {error.filename}" if error.filename else ""
        return f"the disk takes no more ({error.strerror}{where}); make room, or choose out= elsewhere"
    if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which is slow to import
        return (
            "out of GPU memory; lower batch_size, let fewer clients share a GPU (a larger engine.gpus_per_client), or "
            "choose precision=bf16"
        )
    return None


UNREAD = 141  # exit code where nobody reads the output, as shells report it


def is_unread(error: BaseException) -> bool:
    """Whether an error only says that who read our output has left, as `head` does; then nothing more is written."""
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # it is no file
        return False
    watched = select.poll()
    watched.register(output, 0)
    if not any(event & select.POLLERR for _, event in watched.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def is_fatal(error: BaseException) -> bool:
    """Whether no client can go on after an error."""
    return isinstance(error, RunFailed) or (isinstance(error, OSError) and error.errno in _FULL)


def explained(error: BaseException, folder: Path | None) -> str:
    """Keep the traceback of an error that nobody has foreseen.

    Args:
        error: as caught.
        folder: of the run at hand, where `error.log` is appended to; None, or one that cannot be written to: the
            traceback goes to a new file in the folder for temporary files.

    Returns:
        one line: what it was, and the file; nothing is kept of what is `foreseen`.
    """
    if (line := foreseen(error)) is not None:
        return line
    if isinstance(error, RunFailed):
        return str(error)
    import tempfile
    import time
    import traceback

    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{''.join(traceback.format_exception(error))}\n"
    try:
        if folder is None:
            raise FileNotFoundError
        path = folder / LOG
        with path.open("a") as file:
            file.write(text)
    except OSError:
        handle, name = tempfile.mkstemp(prefix="flsplit-error-", suffix=".log")
        path = Path(name)
        with os.fdopen(handle, "w") as file:
            file.write(text)
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}{f': {said[0]}' if said else ''}; the traceback is in {path}"


def begun(folder: Path | None) -> Path | None:
    """The folder of a run, once it has been laid out."""
    return folder if folder is not None and (folder / "config.yaml").exists() else None


def goes_on(folder: Path | None) -> str:
    """Ends a line about a run that has begun."""
    return "" if begun(folder) is None else f"; resume={folder} goes on from here"


def told(error: Exception, folder: Path | None) -> tuple[str, int]:
    """What has stopped a run: the user's mistake, something foreseen, or a fault, whose traceback is kept.

    Args:
        error: as caught.
        folder: of the run at hand; None before there is one.

    Returns:
        a line for the user, empty where nobody reads it, and the exit code.
    """
    if is_unread(error):
        return "", UNREAD
    if isinstance(error, UserError):
        return str(error), 2
    said = str(error) if isinstance(error, RunFailed) else explained(error, begun(folder))
    return said + goes_on(folder), 1
