"""What the grids of flsplit's own engines have in common: nodes, and messages that need no task of Flower's."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from flsplit.transport.records import RUN, addressed

SERVER = 1  # the server's number among the nodes, as in Flower
RAISED = 1  # Flower's code for a client that raised


class OwnGrid(Grid):
    """A Flower grid with a node for each client, in their order.

    Attributes:
        contexts: of the nodes.
    """

    def __init__(self, clients: int) -> None:
        self.contexts = {
            node: Context(
                run_id=RUN, node_id=node, node_config={"partition-id": client}, state=RecordDict(), run_config={}
            )
            for client, node in enumerate(range(SERVER + 1, SERVER + 1 + clients))
        }  # fmt: skip

    def set_run(self, run: object) -> None:
        """Nothing to set: there is one run."""

    @property
    def run(self) -> object:
        """No record is kept of the run."""
        return None

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node.

        Args:
            content: what it says.
            message_type: what the node is to do with it.
            dst_node_id: the node.
            group_id: as the caller likes.
            ttl: seconds until it may be given up.
        """
        return addressed(content, message_type, SERVER, dst_node_id, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, ascending."""
        return list(self.contexts)

    @abstractmethod
    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages that `create_message` has made; returns their ids."""

    @abstractmethod
    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Wait for replies to some messages, if only for a while; returns those that are there."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull until all replies are there, or (unless None) until `timeout` seconds have passed."""
        end = None if timeout is None else time.monotonic() + timeout
        waiting, replies = set(self.push_messages(messages)), list[Message]()
        while waiting and (end is None or time.monotonic() < end):
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies
