"""A map over a pool of workers that keeps the order, runs a few items ahead and cleans up behind itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, pool: Executor, ahead: int
) -> Iterator[Result]:
    """Yields ``function(item)`` in the order of `items`, computed by `pool`.

    While the consumer works on one result, at most `ahead` further items are taken. An exception surfaces
    in the consumer, at the item that caused it. What has not begun when the iterator ends, also when it is
    closed early, is not done.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
