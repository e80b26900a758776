"""What runs in a client process of the engine `ray`: a Flower ClientApp, behind the door of a Ray actor."""

from __future__ import annotations

from threading import Condition
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from flsplit.engine.grid import RAISED
from flsplit.errors import no_exit
from flsplit.transport.hub import register
from flsplit.transport.objects import Arrays
from flsplit.transport.ray_hub import Note, ProcessHub

NEWS = "news"  # the concurrency group of `Process.news`, which goes on beside a message
Outcome = tuple[Message, RecordDict, Arrays]  # reply, the node's state, and the models left


class Process:
    """A client process: one message at a time, and news of it at any time.

    Args:
        client_app: of an importable module, so that the process keeps what it has built from message to message.
    """

    def __init__(self, client_app: ClientApp) -> None:
        self._app = client_app
        self._hub: ProcessHub | None = None
        self._message = ""
        self._notes: list[Note] = []
        self._told = Condition()

    def ready(self) -> None:
        """Answers when the process is up."""

    def run(self, message: Message, context: Context, address: str, round: int, *objects: Arrays) -> Outcome:
        """Work on a message.

        Args:
            message: to the node of `context`.
            context: of the node.
            address: of the hub.
            round: the hub's number of the round.
            objects: models that the message needs, but for those that came with others in this round.

        Returns:
            what the node answers, and the models that it has left.
        """
        if self._hub is None or self._hub.address != address:
            self._hub = ProcessHub(address, self._tell)
            register(self._hub)
        with self._told:
            self._message, self._notes = message.metadata.message_id, []
        self._hub.receive(round, objects)
        try:
            with no_exit():
                reply = self._app(message, context)
        except BaseException as error:  # a client that interrupts itself, too
            reply = Message(Error(RAISED, f"{type(error).__name__}: {error}"), reply_to=message)
        return reply, context.state, self._hub.left()

    def _tell(self, note: Note) -> None:
        with self._told:
            self._notes.append(note)
            self._told.notify()

    def news(self) -> tuple[str, list[Note]]:
        """Waits until there is something to tell.

        Returns:
            id of the message at hand, and how far its clients have come.
        """
        with self._told:
            self._told.wait_for(lambda: self._notes)
            notes, self._notes = self._notes, []
            return self._message, notes


def actor_class() -> Any:
    """Ray's actor of `Process`; it is never restarted by itself and repeats no message."""
    import ray

    return ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={NEWS: 1})(Process)
