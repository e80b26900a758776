"""The Ray that this process uses: one that flsplit starts, a cluster that it joins, or one that the caller has started.

What flsplit has started or joined it also leaves; the caller's Ray stays up.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread

import ray
import torch

from flsplit.config.schema import Config
from flsplit.errors import UserError

Asked = tuple[str | None, int | None, dict[str, str]]  # the address, the CPUs, and the processes' environment

# What client processes need of this process's environment, besides the path.
_FOR_WORKERS = ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
_ours: dict[str, Asked] = {}
"""What the Rays that flsplit has started or joined in this process were asked for, by name: one at most, empty when it
has left."""
_beginning: dict[str, Future[None]] = {}
_left = Event()


def start_ray(address: str | None = None, *, cpus: int | None = None) -> None:
    """Start Ray on this machine, or join a cluster, unless this process has one already.

    One that is kept from a run before (`flsplit.engine.kept`) ends first if that asked for another.

    Client processes find modules where this process finds them; the nodes of a cluster share its file system.

    Args:
        address: of a cluster, `auto` for the one on this machine; None: Ray is started.
        cpus: how many a Ray that is started may hand out; None for all there are.

    Raises:
        UserError: if no cluster can be joined.
    """
    with _own_end():
        _begin_or_wait(address, cpus)


def _begin_or_wait(address: str | None, cpus: int | None) -> None:
    if (future := _beginning.pop("ray", None)) is not None:
        future.result()
        return
    if ray.is_initialized() and _ours.get(connection(), asked := (address, cpus, _variables())) != asked:
        ray.shutdown()
        _ours.clear()
    if not ray.is_initialized():
        _start(address, cpus)


@contextmanager
def _own_end() -> Iterator[None]:
    """Ray takes SIGTERM for itself and prints a trace: who has had a handler for it has it again afterwards."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and current_thread() is main_thread():
            signal.signal(signal.SIGTERM, handler)


def _start(address: str | None, cpus: int | None = None) -> None:
    with _environment(_variables()):
        try:
            if address is None:
                ray.init(
                    "local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
                )  # fmt: skip
            else:
                environment = {"env_vars": _variables()}
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if address is None:
                raise
            raise UserError(f"engine.address={address}: {str(error).strip().splitlines()[0]}") from error
    _ours[connection()] = address, cpus, _variables()


def begin_ray(address: str | None = None) -> None:
    """Do in another thread what the next call of `start_ray` will wait for, and raise if it cannot be done."""
    if ray.is_initialized():
        return
    future = _beginning["ray"] = Future[None]()

    def work() -> None:
        try:
            _start(address)
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)
        _left.wait()  # Ray's processes end with the thread that has started them

    _left.clear()
    Thread(target=work, name="flsplit-ray", daemon=True).start()


def leave_ray() -> None:
    """End the Ray that `start_ray` has started, or leave the cluster that it has joined; the caller's stays."""
    if (future := _beginning.pop("ray", None)) is not None:
        future.exception()  # waits
    if ray.is_initialized() and connection() in _ours:
        ray.shutdown()
    _ours.clear()
    _left.set()


def connection() -> str:
    """What tells this connection to a Ray from any other."""
    here = ray.get_runtime_context()
    return f"{here.get_node_id()} {here.get_worker_id()}"  # the second is the first driver's in every Ray


def _variables() -> dict[str, str]:
    # Ray itself puts the folder at hand first, but a package wins over a mere folder of its name, wherever it comes.
    folders = [*(str(p) for p in sys.path if p), str(Path(__file__).parents[2]), os.getcwd()]  # noqa: PTH109
    path = os.pathsep.join(dict.fromkeys(folders))
    return {"PYTHONPATH": path, **{name: os.environ[name] for name in _FOR_WORKERS if name in os.environ}}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """While it lasts, this process has some variables, which those that it starts inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def gpu_share(config: Config, cluster: Mapping[str, float], workers: int) -> float:
    """GPUs per client: what the user says, or (`auto`) an equal share for as many clients as run at a time."""
    share = config.engine.gpus_per_client
    if not isinstance(share, str):
        return float(share)
    gpus = cluster.get("GPU", 0.0)
    return 0.0 if not gpus else int(10_000 * min(1.0, gpus / workers)) / 10_000


def count_workers(config: Config, cuda: bool) -> int:
    """Client processes that fit on this machine, or in the cluster; with `gpus_per_client=auto`, 4 a GPU.

    Raises:
        UserError: if the cluster of `engine.address` cannot be joined, or has no node for a client.
    """
    if config.engine.address is not None:
        start_ray(config.engine.address)
    if ray.is_initialized() and "ray" not in _beginning:
        nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
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
