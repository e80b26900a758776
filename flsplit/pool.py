"""Flower's pool of client processes on Ray, less those that have died.

Flower hands a dead process out again and again, and it fails one client after another. Here it rests until Ray has
restarted it, which with its whole node gone may be never.
"""

from __future__ import annotations

import time
from threading import Condition, Thread
from typing import Any

import ray
from flwr.app import Context, Message
from flwr.server.superlink.fleet.vce.backend import raybackend
from flwr.simulation.ray_transport.ray_actor import BasicActorPool
from ray.exceptions import ActorDiedError, RayActorError, RayError

_PAUSE = 0.5  # seconds between two looks whether a process is back


def install() -> None:
    """Have Flower's simulations in this process use `Pool`."""
    raybackend.BasicActorPool = Pool


class Pool(BasicActorPool):
    """A pool whose members answer; whoever finds none waits for one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._change = Condition()

    def submit(self, actor_fn: Any, job: Any) -> Any:
        """Have an idle process work on a message."""
        with self._change:
            while not self.pool:
                self._change.wait()
            return super().submit(actor_fn, job)

    def fetch_result_and_return_actor_to_pool(self, future: Any) -> tuple[Message, Context]:
        """Wait for a reply.

        Raises:
            RayActorError: if the process died; it does not return to the pool before it is back.
        """
        try:
            return super().fetch_result_and_return_actor_to_pool(future)
        except RayActorError:
            actor = self._future_to_actor.pop(future)
            Thread(target=self._await, args=(actor,), daemon=True).start()
            raise

    def add_actor_back_to_pool(self, future: Any) -> None:
        """Take the process of `future` back, unless it has died."""
        actor = self._future_to_actor.pop(future, None)
        if actor is not None:
            self._take_in(actor)

    def _take_in(self, actor: Any) -> None:
        with self._change:
            self.pool.append(actor)
            self._change.notify()

    def _await(self, actor: Any) -> None:
        while True:
            try:
                ray.get(actor.__ray_ready__.remote())
                break
            except ActorDiedError:
                return
            except RayActorError:
                time.sleep(_PAUSE)
            except (RayError, RuntimeError):  # the simulation is over
                return
        self._take_in(actor)
