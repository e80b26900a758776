"""The command line in a process of its own, which has imported everything when it starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from functools import cache
from pathlib import Path

IMPORTED = ["flsplit.cli", "flsplit.experiment", "strategies", "compressors", "helpers.program"]


@cache
def _forks() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def _main(keys: list[str], said: str, session: bool) -> None:
    if session:
        os.setsid()
    for stream, path in ((1, os.devnull), (2, said)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from flsplit.cli import main

    sys.argv = ["flsplit", *keys]
    sys.exit(main())


class Program:
    """`flsplit KEYS`.

    Args:
        keys: what is typed.
        folder: where what it says is kept.
        session: whether it leads a session, and so a group of processes.
    """

    def __init__(self, keys: list[str], folder: Path, *, session: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._said = folder / f"said-{len(list(folder.glob('said-*')))}"
        self._process = _forks().Process(target=_main, args=(keys, str(self._said), session))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def code(self) -> int | None:
        """What it has ended with, minus a signal's number if that has ended it; None while it goes on."""
        return self._process.exitcode

    @property
    def said(self) -> str:
        """What it has written to stderr."""
        return self._said.read_text() if self._said.exists() else ""

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end, for so long at most; its code."""
        self._process.join(seconds)
        return self.code

    def kill(self) -> None:
        """End it, if it still goes on."""
        self._process.kill()
        self._process.join()
