"""Where clients run: an engine is a module of this folder, named like its file in `conf/engine`.

Each has two functions: `run(plan, client_app, workers, main)` calls `main` with a grid that has a node of `client_app`
for every client, and with the hub that goes with it; `workers(config, cuda)` is how many clients run at a time.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flsplit.config.schema import Config

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

    from flsplit.assembly import Plan
    from flsplit.transport.hub import ServerHub

ServerMain = Callable[["Grid", "ServerHub"], None]

_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_keeping = 0

__all__ = ["ServerMain", "begin", "keeping", "kept", "leave", "quiet", "run", "workers"]


def begin(config: Config) -> None:
    """Have Ray start, where the engine needs it, beside what comes before the run; `leave` ends it again."""
    if config.engine.name != "inline":
        _on_this_machine(config)
        from flsplit.engine.session import begin_ray

        quiet()
        begin_ray(config.engine.address)


def leave() -> None:
    """End or leave what `begin` or a run has started; nothing where there is none, or while it is `kept`."""
    if _keeping:
        return
    if (idle := sys.modules.get("flsplit.engine.idle")) is not None:
        idle.end()
    if (session := sys.modules.get("flsplit.engine.session")) is not None:
        session.leave_ray()


@contextmanager
def kept() -> Iterator[None]:
    """While it lasts, the Ray that a run starts and its client processes stay up for the runs after it.

    A process that has to be started first costs a run of seconds as many again: what it imports takes longest.
    """
    global _keeping
    _keeping += 1
    try:
        yield
    finally:
        _keeping -= 1
        leave()


def keeping() -> bool:
    """Whether what a run has started is kept for the next."""
    return _keeping > 0


def run(plan: Plan, client_app: ClientApp, workers: int, main: ServerMain) -> None:
    """Run `main` as the server of an experiment, over a grid with one node of `client_app` per client.

    Args:
        plan: of the experiment.
        client_app: what the nodes run.
        workers: client processes that run at a time.
        main: called with the grid and the hub.

    Raises:
        RunFailed: if the engine cannot start.
    """
    quiet()
    _engine(plan.config).run(plan, client_app, workers, main)


def workers(config: Config, cuda: bool) -> int:
    """Client processes that run at a time.

    Args:
        config: of the experiment.
        cuda: whether clients train on GPUs.

    Raises:
        UserError: if the engine cannot be had.
    """
    return _engine(config).workers(config, cuda)


def quiet() -> None:
    """Keep Flower and Ray from writing between our lines; what goes wrong reaches the user by ours."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray._private").setLevel(logging.CRITICAL)  # Ray resets its own level, but not this one


def _on_this_machine(config: Config) -> None:
    """Have a Ray that joins no cluster listen at the loopback alone, unless it is imported already.

    Ray has this switch for Windows and macOS, where listening elsewhere makes firewalls ask; it looks at it on import.
    """
    if config.engine.name == "inline" or config.engine.address is not None or "ray" in sys.modules:
        return
    asked = _LOOPBACK in os.environ
    os.environ.setdefault(_LOOPBACK, "0")
    import ray  # noqa: F401

    if not asked:
        del os.environ[_LOOPBACK]


def _engine(config: Config) -> Any:
    _on_this_machine(config)
    return import_module(f"{__name__}.{config.engine.name}")
