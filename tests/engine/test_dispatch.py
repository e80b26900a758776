"""Flower's own loops, run by hand as its simulation runs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.server.superlink.fleet.vce import vce_api
from flwr.serverapp import Grid

from flsplit.engine import dispatch
from flsplit.server.messenger import ANSWERED, SENT, Messenger


class State:
    """What Flower's loops see of its state: messages by node, and replies."""

    def __init__(self) -> None:
        self.messages: dict[int, str] = {}
        self.asked: list[int] = []
        self.looked = Event()
        self.replies: list[object] = []

    def get_message_ins(self, node_id: int, limit: int) -> list[str]:
        self.asked.append(node_id)
        if len(self.asked) % 3 == 0:
            self.looked.set()
        return [self.messages.pop(node_id)] if node_id in self.messages else []

    def store_message_res(self, message: object) -> None:
        assert not ANSWERED.is_set()
        self.replies.append(message)


@contextmanager
def running(loop: Callable[..., None], *args: object) -> Iterator[Event]:
    stop = Event()
    thread = Thread(target=loop, args=(*args, stop))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_messages_go_out_by_ascending_node_when_they_are_sent_and_not_before() -> None:
    SENT.clear()
    state, queue = State(), Queue[str]()
    with dispatch.prompt(), running(vce_api.add_messages_to_queue, state, queue, {7: 0, 3: 1, 5: 2}):
        assert state.looked.wait(30)
        assert not Event().wait(0.35) and state.asked == [3, 5, 7]  # in which Flower alone would look three times
        state.messages = {7: "c", 5: "b", 3: "a"}
        SENT.set()
        assert [queue.get(timeout=30) for _ in range(3)] == ["a", "b", "c"]
    assert not state.messages


def test_what_was_not_handed_out_at_once_is_later() -> None:
    """Two messages to one node: Flower takes one of a node at a time."""
    SENT.clear()
    state, queue = State(), Queue[str]()
    with dispatch.prompt(), running(vce_api.add_messages_to_queue, state, queue, {7: 0, 3: 1, 5: 2}):
        assert state.looked.wait(30)
        state.messages = {3: "a"}
        SENT.set()
        assert queue.get(timeout=30) == "a"
        state.messages = {3: "b"}  # of which nobody tells
        assert queue.get(timeout=30) == "b"


def test_flower_alone_goes_by_the_order_of_its_nodes() -> None:
    """Why there is anything to do; if this fails, see whether `flsplit.engine.dispatch` is still needed."""
    state, queue = State(), Queue[str]()
    with running(vce_api.add_messages_to_queue, state, queue, {7: 0, 3: 1, 5: 2}):
        assert state.looked.wait(30)
    assert state.asked[:3] == [7, 3, 5]


def test_a_reply_is_noticed_when_it_is_there() -> None:
    ANSWERED.clear()
    state, queue = State(), Queue[object]()
    with dispatch.prompt(), running(vce_api.put_message_into_state, state, queue):
        queue.put("reply")
        assert ANSWERED.wait(30) and state.replies == ["reply"]


def test_flower_is_as_before_afterwards() -> None:
    before = vce_api.add_messages_to_queue, vce_api.put_message_into_state
    with pytest.raises(KeyError), dispatch.prompt():
        assert vce_api.add_messages_to_queue is not before[0]
        raise KeyError
    assert (vce_api.add_messages_to_queue, vce_api.put_message_into_state) == before


def test_a_messenger_says_that_it_has_sent_and_waits_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flsplit.server.messenger.POLL", (60.0, 60.0))
    monkeypatch.setattr(Messenger, "_message", lambda *args: "message")
    waiting: list[str] = []

    class Slow(Grid):
        def get_node_ids(self) -> list[int]:
            return [2]

        def push_messages(self, messages: Any) -> list[str]:
            SENT.clear()
            Thread(target=self.answer, args=(list(messages),)).start()
            return ["1"]

        def answer(self, messages: list[str]) -> None:
            assert SENT.wait(30) and not Event().wait(0.2)
            waiting.append(messages[0])
            ANSWERED.set()

        def pull_messages(self, message_ids: Any) -> list[Any]:
            metadata = SimpleNamespace(reply_to_message_id="1")
            return [SimpleNamespace(metadata=metadata, has_error=lambda: False) for _ in waiting]

        create_message = send_and_receive = get_nodes = set_run = None  # type: ignore[assignment]
        run = None  # type: ignore[assignment]

    began = time.monotonic()
    Messenger(Slow(), "plan", "hub", 1, idle=lambda: None).warm_up(1)
    assert waiting and time.monotonic() - began < 30
