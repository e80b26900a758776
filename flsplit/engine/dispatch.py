"""Flower's simulation without its waits: messages are handed out, and replies noticed, as soon as they are there.

By itself Flower looks for messages ten times a second, in the order in which it has made its nodes, so that a round
begins 0.05 s late, and a server that averages in the order of its clients waits for the first of them to the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event
from typing import Any

from flwr.app import Message
from flwr.server.superlink.fleet.vce import vce_api

from flsplit.server.messenger import ANSWERED, SENT


@contextmanager
def prompt() -> Iterator[None]:
    """While it lasts, simulations of this process hand out what a `Messenger` sends at once, by ascending node."""
    hand_out, take_in = vce_api.add_messages_to_queue, vce_api.put_message_into_state

    def in_order(state: Any, queue: Any, nodes: Mapping[int, int], stop: Event) -> None:
        hand_out(state, queue, dict(sorted(nodes.items())), _Woken(stop))

    def noticed(state: Any, queue: Any, stop: Event) -> None:
        take_in(_Noticed(state), queue, stop)

    vce_api.add_messages_to_queue, vce_api.put_message_into_state = in_order, noticed
    try:
        yield
    finally:
        vce_api.add_messages_to_queue, vce_api.put_message_into_state = hand_out, take_in


class _Woken(Event):
    """Flower's `stop`, whose `wait` ends when there are messages; without, Flower looks ten times less often."""

    def __init__(self, stop: Event) -> None:
        super().__init__()
        self.is_set = stop.is_set  # type: ignore[method-assign]

    def wait(self, timeout: float | None = None) -> bool:
        for _ in range(10):
            if SENT.wait(timeout) or self.is_set():
                break
        SENT.clear()
        return self.is_set()


class _Noticed:
    """Flower's state, as far as it is told of replies."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def store_message_res(self, message: Message) -> Any:
        try:
            return self._state.store_message_res(message)
        finally:
            ANSWERED.set()
