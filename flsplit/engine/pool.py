"""Flower's pool of client processes on Ray, less those that have died.

Flower hands a dead process out again and again, and it fails one client after another. Here it rests until Ray has
restarted it, which with its whole node gone may be never.
"""

from __future__ import annotations

from threading import Condition, Event, Thread
from typing import Any

import ray
from flwr.app import Context, Message
from flwr.server.superlink.fleet.vce.backend import raybackend
from flwr.simulation.ray_transport.ray_actor import BasicActorPool
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError

_PAUSE = 0.5  # seconds between two looks whether a process is back
_over = Event()
_waiting: list[Thread] = []


def install() -> None:
    """Have Flower's simulations in this process use `Pool`; one at a time."""
    raybackend.BasicActorPool = Pool
    _over.clear()


def stop() -> None:
    """Wait for dead processes no more. Comes before the end of Ray, which a thread that still asks it brings down."""
    _over.set()
    while _waiting:
        _waiting.pop().join()


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
            thread = Thread(target=self._await, args=(actor,), daemon=True)
            _waiting.append(thread)
            thread.start()
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
        ready = None
        while not _over.is_set():
            ready = ready or actor.__ray_ready__.remote()
            try:
                ray.get(ready, timeout=_PAUSE)
                return self._take_in(actor)
            except GetTimeoutError:
                continue
            except ActorDiedError:
                return None
            except RayActorError:
                ready = None
                _over.wait(_PAUSE)
        return None
