"""How long calls within a run take: for what is too small a part of it to show in a ratio of two runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import get_ident
from typing import Any
from unittest.mock import patch


@contextmanager
def watched(*calls: tuple[Any, str], wait: Callable[[], None] = lambda: None) -> Iterator[list[float]]:
    """Seconds of each call of these while the context lasts, in the order in which they end.

    Calls in other threads are left out, for nobody waits for them; a call within another is a part of that.

    Args:
        calls: owners (modules, classes) and the names of their functions.
        wait: called before and after each call; on a GPU, waits for what it was given.
    """
    spent: list[float] = []
    thread, within = get_ident(), False

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal within
            if within or get_ident() != thread:
                return function(*args, **options)
            wait()
            within, began = True, time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                wait()
                within = False
                spent.append(time.perf_counter() - began)

        return wrapped

    with ExitStack() as stack:
        for owner, name in calls:
            stack.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        yield spent
