"""`flwr run .`: a thin adapter, named in `pyproject.toml`.

Flower decides on the engine and the number of nodes here; everything else comes from
`--run-config 'overrides="compressor=topk rounds=5"'`.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from flsplit.client.app import app as client
from flsplit.errors import RunFailed

server = ServerApp()

NODES_WITHIN = 30  # seconds in which Flower's nodes and Ray appear


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run one experiment on the nodes that Flower has started."""
    import ray

    from flsplit.compose import compose
    from flsplit.engine.flower import serve
    from flsplit.experiment import execute

    logging.getLogger("flwr").setLevel(logging.WARNING)
    overrides = shlex.split(str(context.run_config.get("overrides", "")))
    _wait(ray.is_initialized, "Ray")
    _wait(lambda: bool(list(grid.get_node_ids())), "a Flower node")
    nodes = len(list(grid.get_node_ids()))
    if not any(o.startswith("clients=") for o in overrides):
        overrides.append(f"clients={nodes}")
    config = compose([*overrides, "engine=flower"])
    if config.clients > nodes:
        raise RunFailed(
            f"clients={config.clients}, but Flower has started {nodes} nodes; for more: "
            f"flwr federation simulation-config --num-supernodes {config.clients}"
        )
    execute(config, stream=sys.stdout, start=lambda rounds: serve(grid, config.clients, rounds))


def _wait(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + NODES_WITHIN
    while not ready():
        if time.monotonic() > deadline:
            raise RunFailed(f"{what} did not appear within {NODES_WITHIN} s; `flwr run` must use a simulation")
        time.sleep(0.1)


__all__ = ["client", "server"]
