"""Clients run in the server's process, one at a time: the reference that other engines match to the bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from flsplit.assembly import Plan, use_threads
from flsplit.config.schema import Config
from flsplit.engine import ServerMain
from flsplit.engine.grid import RAISED, OwnGrid
from flsplit.errors import no_exit
from flsplit.transport.hub import LocalHub


def run(plan: Plan, client_app: ClientApp, workers: int, main: ServerMain) -> None:
    """See `flsplit.engine.run`."""
    threads, hub = torch.get_num_threads(), LocalHub()
    try:
        use_threads(plan.config)
        main(InlineGrid(client_app, plan.config.clients), hub)
    finally:
        hub.close()
        torch.set_num_threads(threads)


def workers(config: Config, cuda: bool) -> int:
    """See `flsplit.engine.workers`."""
    return 1


class InlineGrid(OwnGrid):
    """A node's reply is worked out when it is pulled, one at a time, in the order of the messages."""

    def __init__(self, client_app: ClientApp, clients: int) -> None:
        super().__init__(clients)
        self._app = client_app
        self._queue: deque[Message] = deque()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `OwnGrid`."""
        fresh = list(messages)
        self._queue.extend(fresh)
        return [message.metadata.message_id for message in fresh]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Work out the next reply."""
        if not self._queue:
            return []
        message = self._queue.popleft()
        try:
            with no_exit():
                return [self._app(message, self.contexts[message.metadata.dst_node_id])]
        except Exception as error:
            return [Message(Error(RAISED, f"{type(error).__name__}: {error}"), reply_to=message)]
