"""Clients run in Flower's own simulation engine, as it comes (`pip install 'flsplit[flower]'`).

`Waiting` makes of Flower's grid, which answers at once whether there are replies or not, one that waits for a moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib import import_module

import ray
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flsplit.assembly import Plan, use_threads
from flsplit.config.schema import Config
from flsplit.engine import ServerMain, idle, leave
from flsplit.engine.session import count_workers, gpu_share, start_ray
from flsplit.errors import RunFailed, UserError
from flsplit.transport.named_hub import NamedHub

NODES_WITHIN = 120.0  # seconds in which Flower's nodes appear
PAUSE = 0.005  # seconds between two looks at Flower's grid, which tells nobody of a reply


def run(plan: Plan, client_app: ClientApp, workers: int, main: ServerMain) -> None:
    """See `flsplit.engine.run`."""
    from flwr.simulation import run_simulation

    config, threads = plan.config, torch.get_num_threads()
    server, raised = ServerApp(), list[BaseException]()

    @server.main()
    def _main(grid: Grid, context: Context) -> None:
        try:
            use_threads(config)
            serve(grid, config.clients, main)
        except BaseException as error:  # Flower would end with an error of its own
            raised.append(error)

    start_ray(config.engine.address)
    idle.end()  # Flower starts its own
    try:
        gpus = gpu_share(config, ray.cluster_resources(), workers) if plan.device == "cuda" else 0.0
        resources = {"num_cpus": config.engine.cpus_per_client, "num_gpus": gpus}
        run_simulation(server, client_app, config.clients, backend_config={"client_resources": resources})
    except RuntimeError as error:
        if not raised:
            raise RunFailed(f"Flower's simulation has ended: {' '.join(str(error).split())}") from error
    finally:
        torch.set_num_threads(threads)
        leave()
    if raised:
        raise raised[0]


def serve(grid: Grid, clients: int, main: ServerMain) -> None:
    """Run `main` over a grid of Flower's, once it has a node for each client."""
    waiting, hub = Waiting(grid), NamedHub()
    try:
        waiting.wait_for(clients)
        main(waiting, hub)
    finally:
        hub.close()


def workers(config: Config, cuda: bool) -> int:
    """See `flsplit.engine.workers`."""
    try:
        import_module("flwr.simulation")
    except ImportError as error:
        raise UserError(
            f"engine=flower needs Flower's simulation engine (pip install 'flsplit[flower]'): {error}"
        ) from error
    return count_workers(config, cuda)


class Waiting(Grid):
    """A grid of Flower's, whose `pull_messages` waits until there is a reply, if only for a moment."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def wait_for(self, nodes: int) -> None:
        """Wait until there are so many nodes.

        Raises:
            RunFailed: if they do not appear.
        """
        deadline = time.monotonic() + NODES_WITHIN
        while (count := len(list(self.get_node_ids()))) < nodes:
            if time.monotonic() > deadline:
                raise RunFailed(f"only {count} of {nodes} Flower nodes appeared within {NODES_WITHIN:g} s")
            time.sleep(PAUSE)

    def set_run(self, run: object) -> None:
        """Flower has set it."""

    @property
    def run(self) -> object:
        """Flower's record of the run."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that there are by now."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; returns their ids."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there, or none after a moment."""
        found = list(self._grid.pull_messages(message_ids))
        if not found:
            time.sleep(PAUSE)
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull until all replies are there."""
        return self._grid.send_and_receive(messages, timeout=timeout)
