"""Where clients run: Flower's simulation engine on Ray, or this process."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

from flsplit.assembly import Plan, use_threads
from flsplit.config.schema import Config
from flsplit.errors import UserError
from flsplit.transport.hub import Hub, LocalHub, RayHub

ServerMain = Callable[[Grid, Hub], None]
_ERROR = 1  # Flower's code for a client that raised
# What workers on other nodes need of this process's environment.
_FOR_WORKERS = (
    "PYTHONPATH",
    "FLWR_TELEMETRY_ENABLED",
    "FLWR_DISABLE_UPDATE_CHECK",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
)


def run(plan: Plan, client_app: ClientApp, workers: int, main: ServerMain) -> None:
    """Run `main` as the server of an experiment, over a grid with one node of `client_app` per client.

    Args:
        plan: of the experiment.
        client_app: what the nodes run.
        workers: client processes that run at a time.
        main: called with the grid and the hub.
    """
    quiet()
    if plan.config.engine.name == "inline":
        _run_inline(plan.config, client_app, main)
    else:
        _run_ray(plan, client_app, workers, main)


class InlineGrid(Grid):
    """A Flower grid in one process: a node's reply is worked out when it is pulled, one at a time, in order."""

    def __init__(self, client_app: ClientApp, nodes: int) -> None:
        self._app = client_app
        self._contexts = {
            node: Context(
                run_id=TaskIdentity.run_id, node_id=node, node_config={"partition-id": client},
                state=RecordDict(), run_config={},
            )
            for client, node in enumerate(range(SUPERLINK_NODE_ID + 1, SUPERLINK_NODE_ID + 1 + nodes))
        }  # fmt: skip
        self._queue: deque[Message] = deque()

    def set_run(self, run: object) -> None:
        """Nothing to set: there is one run."""

    @property
    def run(self) -> object:
        """No record is kept of the run."""
        return None

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Superseded by `Message(...)` in Flower itself."""
        return Message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self._contexts)

    def get_nodes(self) -> Iterable[object]:
        """Nodes have no further information."""
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages; returns their ids."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            self._queue.append(message)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Work out the next reply."""
        if not self._queue:
            return []
        message = self._queue.popleft()
        try:
            return [self._app(message, self._contexts[message.metadata.dst_node_id])]
        except Exception as error:
            return [Message(Error(_ERROR, f"{type(error).__name__}: {error}"), reply_to=message)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull until all replies are there."""
        ids = list(self.push_messages(messages))
        return [reply for _ in ids for reply in self.pull_messages(ids)]


def _run_inline(config: Config, client_app: ClientApp, main: ServerMain) -> None:
    threads, hub = torch.get_num_threads(), LocalHub()
    try:
        use_threads(config)
        # Flower makes no message in a process that is no task of its own.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
        main(InlineGrid(client_app, config.clients), hub)
    finally:
        hub.close()
        torch.set_num_threads(threads)


def _run_ray(plan: Plan, client_app: ClientApp, workers: int, main: ServerMain) -> None:
    import ray

    config = plan.config
    with ThreadPoolExecutor(1) as beside:  # while Ray starts, Flower's simulation is imported
        simulation = beside.submit(import_module, "flwr.simulation")
        start_ray(config.engine.address)
        run_simulation = simulation.result().run_simulation
    from flsplit.engine import dispatch, pool

    pool.install()
    threads = torch.get_num_threads()
    server = ServerApp()

    @server.main()
    def _main(grid: Grid, context: Context) -> None:
        hub = RayHub(f"flsplit-{uuid4().hex[:12]}", create=True)
        try:
            use_threads(config)
            main(grid, hub)
        finally:
            pool.stop()
            hub.close()

    resources = {
        "num_cpus": config.engine.cpus_per_client,
        "num_gpus": gpu_share(config, ray.cluster_resources(), workers) if plan.device == "cuda" else 0.0,
        "max_restarts": -1,  # a killed worker comes back
    }
    try:
        # The one place that names Flower's entry into a simulation, which it has announced to replace.
        with dispatch.prompt():
            run_simulation(server, client_app, config.clients, backend_config={"client_resources": resources})
    finally:
        torch.set_num_threads(threads)
        ray.shutdown()


def start_ray(address: str | None = None, *, cpus: int | None = None) -> None:
    """Start Ray on this machine, or join a cluster, unless this process has done so already.

    Workers find modules where this process finds them; the nodes of a cluster share its file system.

    Args:
        address: of a cluster, `auto` for the one on this machine; None: Ray is started.
        cpus: how many a Ray that is started may hand out; None for all there are.

    Raises:
        UserError: if no cluster can be joined.
    """
    import ray

    if ray.is_initialized():
        return
    # Ray itself puts the folder at hand first, but a package wins over a mere folder of its name, wherever it comes.
    folders = [*(str(p) for p in sys.path if p), str(Path(__file__).parents[2]), os.getcwd()]  # noqa: PTH109
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(folders))
    if address is None:
        ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        return
    variables = {name: os.environ[name] for name in _FOR_WORKERS if name in os.environ}
    try:
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": variables}
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"engine.address={address}: {str(error).strip().splitlines()[0]}") from error


def cluster(address: str) -> list[dict[str, float]]:
    """What the nodes of a cluster have.

    Raises:
        UserError: if it cannot be joined.
    """
    import ray

    quiet()
    start_ray(address)
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def gpu_share(config: Config, cluster: dict[str, float], workers: int) -> float:
    """GPUs per client: what the user says, or (`auto`) an equal share for as many clients as run at a time."""
    share = config.engine.gpus_per_client
    if not isinstance(share, str):
        return float(share)
    gpus = cluster.get("GPU", 0.0)
    return 0.0 if not gpus else int(10_000 * min(1.0, gpus / workers)) / 10_000


def workers(config: Config, cuda: bool) -> int:
    """Client processes that run at a time, on this machine or in the cluster; with `gpus_per_client=auto`, 4 a GPU.

    Raises:
        UserError: if the cluster of `engine.address` cannot be joined, or has no node for a client.
    """
    if config.engine.name == "inline":
        return 1
    if config.engine.address is not None:
        nodes = cluster(config.engine.address)
    else:
        nodes = [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count() if cuda else 0)}]
    count = sum(int(node.get("CPU", 0) // config.engine.cpus_per_client) for node in nodes)
    gpus = sum(int(node.get("GPU", 0)) for node in nodes) if cuda else 0
    if not count:
        raise UserError(
            f"engine.cpus_per_client={config.engine.cpus_per_client:g} asks for more CPUs than any node of the cluster "
            f"has; at most {max((node.get('CPU', 0) for node in nodes), default=0):g}"
        )
    if gpus:
        share = config.engine.gpus_per_client
        count = min(count, 4 * gpus if isinstance(share, str) else int(gpus / share) if share else count)
    return max(1, min(count, config.clients))


def quiet() -> None:
    """Keep Flower and Ray from writing between our lines; what goes wrong reaches the user by ours."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray._private").setLevel(logging.CRITICAL)  # Ray resets its own level, but not this one
