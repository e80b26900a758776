"""Sends tasks to clients as Flower messages and yields their replies in the order of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from flsplit.errors import RunFailed
from flsplit.transport.records import from_record, reports_from_json, to_record
from flsplit.transport.task import Report, Task

TRIES = 3  # of a client process to build what it needs
TTL = 90 * 24 * 3600.0  # seconds until Flower gives a message up


class Messenger:
    """One run's traffic over a Flower grid.

    Args:
        grid: Flower's; its `pull_messages` waits for a reply, if only for a while.
        plan: of the experiment, as JSON.
        hub: address of its hub.
        clients: how many there are; client c is node c of the grid in ascending order of node ids.
        timeout: seconds that a client may take for its round; None for as long as it likes.
        idle: called while waiting.

    Raises:
        RuntimeError: if the grid has fewer nodes.
    """

    def __init__(
        self, grid: Grid, plan: str, hub: str, clients: int, *, timeout: float | None, idle: Callable[[], None]
    ) -> None:
        self._grid, self._plan, self._hub, self._idle = grid, plan, hub, idle
        self._timeout = timeout
        self._nodes = sorted(grid.get_node_ids())
        if len(self._nodes) < clients:
            raise RuntimeError(f"the grid has {len(self._nodes)} nodes for {clients} clients")

    def warm_up(self, workers: int) -> None:
        """Have `workers` client processes build models and data, side by side; one that dies is given another try.

        Raises:
            RunFailed: if they cannot.
        """
        nodes = self._nodes[:workers]
        for _ in range(TRIES):
            messages = [self._message({"plan": self._plan}, node, MessageType.QUERY) for node in nodes]
            failed = [_reason(reply) for reply in self._exchange(messages) if reply.has_error()]
            if not failed:
                return
            nodes = nodes[: len(failed)]
        raise RunFailed(f"a client process cannot start: {failed[0]}")

    def run(self, tasks: Sequence[Task]) -> Iterator[list[Report] | str]:
        """Run `tasks`, as many at a time as there are workers.

        Yields:
            for each task, in their order and as soon as possible, its reports, or why its process failed.
        """
        values = {"plan": self._plan, "hub": self._hub}
        messages = [
            self._message(
                {**values, "task": task.to_json(), "models": task.needs}, self._nodes[task.clients[0]],
                MessageType.TRAIN, TTL if self._timeout is None else self._timeout * len(task.clients),
            )
            for task in tasks
        ]  # fmt: skip
        for reply in self._exchange(messages):
            yield _reason(reply) if reply.has_error() else reports_from_json(from_record(reply)["reports"])

    def _message(self, values: Mapping[str, str | list[str]], node: int, kind: str, seconds: float = TTL) -> Message:
        # By the grid, since `Message(...)` works in tasks of Flower's own only.
        return self._grid.create_message(to_record(**values), kind, node, "", seconds)

    def _exchange(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Send all, yield the replies in the order of the messages as soon as that order allows."""
        ids = list(self._grid.push_messages(messages))
        if len(ids) != len(messages):
            raise RuntimeError("Flower did not accept every message")
        waiting, arrived, turn = set(ids), dict[str, Message](), 0
        while turn < len(ids):
            for reply in self._grid.pull_messages(waiting):
                arrived[reply.metadata.reply_to_message_id] = reply
                waiting.discard(reply.metadata.reply_to_message_id)
            while turn < len(ids) and ids[turn] in arrived:
                yield arrived.pop(ids[turn])
                turn += 1
            self._idle()


def _reason(reply: Message) -> str:
    lines = str(reply.error.reason or "unknown error").strip().splitlines()
    return lines[0] if lines else "unknown error"
