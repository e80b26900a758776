"""Clients run in processes of Ray's, on this machine or in a cluster: a Flower grid over Ray actors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from threading import Condition
from typing import Any, cast

import ray
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp

from flsplit.assembly import Plan, use_threads
from flsplit.config.schema import Config
from flsplit.engine import ServerMain, idle, keeping, leave
from flsplit.engine.grid import OwnGrid
from flsplit.engine.process import Outcome
from flsplit.engine.processes import Member, Processes
from flsplit.engine.session import count_workers, gpu_share, start_ray
from flsplit.errors import RunFailed
from flsplit.transport.host_actor import NamedHost
from flsplit.transport.ray_hub import RayHub
from flsplit.transport.records import from_record

HOST = "central host"  # as a kind of what a run leaves
WAIT = 0.25  # seconds for a reply, after which the server's display has its turn


def run(plan: Plan, client_app: ClientApp, workers: int, main: ServerMain) -> None:
    """See `flsplit.engine.run`."""
    config, threads = plan.config, torch.get_num_threads()
    start_ray(config.engine.address)
    try:
        gpus = gpu_share(config, ray.cluster_resources(), workers) if plan.device == "cuda" else 0.0
        hub = RayHub(_host())
        grid = RayGrid(client_app, config.clients, hub, workers, {"CPU": config.engine.cpus_per_client, "GPU": gpus})
        try:
            use_threads(config)
            main(grid, hub)
        finally:
            grid.close()
            if keeping() and (host := hub.release()) is not None:
                idle.leave(HOST, [host])
            else:
                hub.close()
    finally:
        torch.set_num_threads(threads)
        leave()


def workers(config: Config, cuda: bool) -> int:
    """See `flsplit.engine.workers`."""
    return count_workers(config, cuda)


def _host() -> NamedHost | None:
    """The host that a run before has left, if it still answers."""
    for host in cast(list[NamedHost], idle.take(HOST)):
        if host.lives():
            return host
        host.end()
    return None


class RayGrid(OwnGrid):
    """A node is worked on by any of a number of client processes.

    Args:
        client_app: what the nodes run.
        clients: how many nodes there are.
        hub: whose models go along with the messages.
        workers: how many processes.
        resources: of each, as Ray counts them.
    """

    def __init__(
        self, client_app: ClientApp, clients: int, hub: RayHub, workers: int, resources: dict[str, float]
    ) -> None:
        super().__init__(clients)
        self._hub = hub
        self._replies: dict[str, Message] = {}
        self._failure: RunFailed | None = None
        self._change = Condition()
        self._processes = Processes(
            client_app, workers, {name: count for name, count in resources.items() if count},
            submit=self._submit, answered=self._answered, noted=hub.note, failed=self._failed,
        )  # fmt: skip

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `OwnGrid`."""
        fresh = list(messages)
        self._processes.send(fresh)
        return [message.metadata.message_id for message in fresh]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `OwnGrid`.

        Raises:
            RunFailed: if none will be answered any more.
        """
        wanted = set(message_ids)
        with self._change:
            self._change.wait_for(lambda: self._failure or not wanted.isdisjoint(self._replies), WAIT)
            if self._failure is not None:
                raise self._failure
            return [self._replies.pop(number) for number in wanted & self._replies.keys()]

    def close(self) -> None:
        """End the processes."""
        self._processes.stop()

    def _submit(self, member: Member, message: Message) -> Any:
        hub, context = self._hub, self.contexts[message.metadata.dst_node_id]
        needed = hub.references(from_record(message).get("models", ()))
        if member.round != hub.round:
            member.round, member.has = hub.round, set()
        lacking = [reference for reference in needed if reference not in member.has]
        member.has.update(lacking)
        return member.actor.run.remote(message, context, hub.address, hub.round, *lacking)

    def _answered(self, reply: Message, outcome: Outcome | None) -> None:
        if outcome is not None:
            _, state, models = outcome
            node = reply.metadata.src_node_id
            self.contexts[node] = replace(self.contexts[node], state=state)
            self._hub.accept(models)
        with self._change:
            self._replies[reply.metadata.reply_to_message_id] = reply
            self._change.notify()

    def _failed(self, failure: RunFailed) -> None:
        with self._change:
            self._failure = failure
            self._change.notify()
