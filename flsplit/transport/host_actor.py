"""The central host in a Ray actor of its own, found by its name from every process of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flsplit.errors import no_exit
from flsplit.split.host import ServerHost
from flsplit.split.side import SideState
from flsplit.transport.link import ActorLink, Link, on_cpu

NAMESPACE = "flsplit"


def here() -> dict[str, Any]:
    """Options that keep an actor on the node of this process: other nodes may go, the server's may not."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False)}


class NamedHost:
    """The central host, as its server and its clients reach it.

    Args:
        name: of the actor.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._actor: Any = None
        self._built: Any = None  # the call that builds another host, until that is known to have gone well

    def start(self, make_host: Callable[[], ServerHost]) -> None:
        """Start the actor, which builds the host while the caller goes on; one that runs already builds a new host.

        It takes none of Ray's counted resources, all of which are the clients'. It sees the GPUs all the same (see
        `flsplit/__init__.py`).
        """
        import ray

        if self._actor is not None:
            self._built = self._actor.build.remote(make_host)
            return
        actor = ray.remote(num_cpus=0, num_gpus=0)(HostActor)
        self._actor = actor.options(name=self.name, namespace=NAMESPACE, **here()).remote(make_host)

    def link(self) -> Link:
        """A link to the host."""
        import ray

        if self._actor is None:
            self._actor = ray.get_actor(self.name, namespace=NAMESPACE)
        if self._built is not None:
            ray.get(self._built)
            self._built = None
        return ActorLink(self._actor)

    def lives(self) -> bool:
        """Whether there is an actor that answers."""
        import ray

        if self._actor is None:
            return False
        try:
            ray.get(self._actor.empty.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):
            return False
        return True

    def end(self) -> None:
        """End the actor, if there is one."""
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None


class HostActor:
    """A `ServerHost` behind a Ray actor's door; what leaves it lies on the CPU."""

    def __init__(self, make_host: Callable[[], ServerHost]) -> None:
        self.build(make_host)

    @no_exit()
    def build(self, make_host: Callable[[], ServerHost]) -> None:
        """Have a new host."""
        self.empty()  # where the new one cannot be built, none answers for it
        self._host = make_host()

    def empty(self) -> None:
        """Have none."""
        self.__dict__.pop("_host", None)

    def begin(self, state: SideState, *, shared: bool) -> None:
        """See `ServerHost.begin`."""
        self._host.begin(state, shared=shared)

    @no_exit()
    def open(self, client: int) -> None:
        """See `ServerHost.open`."""
        self._host.open(client)

    @no_exit()
    def plan(self, proposals: Any) -> Any:
        """See `ServerHost.plan`."""
        return [on_cpu(grouping) for grouping in self._host.plan(proposals)]

    def step(self, uplink: Any) -> Any:
        """See `ServerHost.step`."""
        return self.step_jointly([uplink])[0]

    @no_exit()
    def step_jointly(self, uplinks: Any) -> Any:
        """See `ServerHost.step_jointly`."""
        downlinks = self._host.step_jointly(uplinks)
        return [on_cpu(downlink) for downlink in downlinks]

    def close(self, client: int, *, moments: bool) -> Any:
        """See `ServerHost.close`."""
        return self._host.close(client, moments=moments)

    def shared_state(self, *, moments: bool) -> SideState:
        """See `ServerHost.shared_state`."""
        return self._host.shared_state(moments=moments)
