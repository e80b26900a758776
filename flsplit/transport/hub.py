"""Where the processes of one experiment meet: models by reference, the central host, and progress.

Flower messages carry control; whole models and central steps go through a hub. `LocalHub` is a dictionary in the
server's process (engine `inline`), `RayHub` a small named Ray actor that holds references into Ray's object store.
A message names its hub by an address, `connect` finds it in whatever process it arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Protocol

import numpy as np
import torch

from flsplit.ledger.prices import Tally
from flsplit.split.host import ServerHost
from flsplit.split.side import SideState
from flsplit.transport.directory import Directory
from flsplit.transport.link import ActorLink, Host, Link, on_cpu

REPORT_EVERY = 0.25  # seconds between two progress reports of a process
Progress = dict[int, tuple[Tally, float]]  # client -> (its round so far, mean loss so far)


class ModelLost(Exception):
    """A model that cannot be had any more: the process that left it, or its machine, is gone."""


class Hub(Protocol):
    """What server and clients share."""

    address: str
    on_report: Callable[[], None] | None  # called after a report where that happens in the server's process

    def put(self, states: Mapping[str, SideState]) -> None:
        """Leave models under their keys; a key is used once."""

    def get(self, key: str) -> SideState:
        """The model under `key`, which stays there.

        Raises:
            ModelLost: see there.
        """

    def take(self, keys: Sequence[str]) -> dict[str, SideState]:
        """The models under `keys`, which are forgotten.

        Raises:
            ModelLost: see there; of all of them, where one is gone.
        """

    def start_host(self, make_host: Callable[[], ServerHost]) -> None:
        """Start the central host (placement `central`)."""

    def host_link(self) -> Link:
        """A link to the central host."""

    def report(self, client: int, tally: Tally, host: Host) -> None:
        """Tell how far `client` has come in this round; most calls are dropped, so that it costs nothing."""

    def progress(self) -> Progress:
        """The latest reports of this round."""

    def new_round(self) -> None:
        """Forget the models and the reports of the last round."""


class LocalHub:
    """A hub for one process."""

    _numbers = count()

    def __init__(self) -> None:
        self.address = f"local:{next(self._numbers)}"
        self.on_report: Callable[[], None] | None = None
        self.host: ServerHost | None = None
        self._states: dict[str, SideState] = {}
        self._progress: Progress = {}
        self._reported = 0.0
        _local[self.address] = self

    def put(self, states: Mapping[str, SideState]) -> None:
        """See `Hub`."""
        self._states |= states

    def get(self, key: str) -> SideState:
        """See `Hub`."""
        return self._states[key]

    def take(self, keys: Sequence[str]) -> dict[str, SideState]:
        """See `Hub`."""
        return {key: self._states.pop(key) for key in keys}

    def start_host(self, make_host: Callable[[], ServerHost]) -> None:
        """See `Hub`."""
        self.host = make_host()

    def host_link(self) -> Link:
        """See `Hub`."""
        assert self.host is not None, "placement `replica` has no central host"
        return self.host

    def report(self, client: int, tally: Tally, host: Host) -> None:
        """See `Hub`."""
        if _due(self):
            self._progress[client] = (tally, host.mean_loss(client))
            if self.on_report is not None:
                self.on_report()

    def progress(self) -> Progress:
        """See `Hub`."""
        return self._progress

    def new_round(self) -> None:
        """See `Hub`."""
        self._states, self._progress = {}, {}

    def close(self) -> None:
        """Let go of everything."""
        _local.pop(self.address, None)


class RayHub:
    """A hub for the processes of a Ray cluster; the server makes it, workers connect by its address."""

    NAMESPACE = "flsplit"

    def __init__(self, name: str, *, create: bool = False) -> None:
        import ray

        self._ray = ray
        self.address = f"ray:{name}"
        self.on_report: Callable[[], None] | None = None
        self._reported = 0.0
        self._host: Any = None
        self._held: dict[str, SideState] = {}
        if create:
            actor = ray.remote(num_cpus=0)(Directory)
            self._directory = actor.options(name=name, namespace=self.NAMESPACE, **self._here()).remote()
        else:
            self._directory = ray.get_actor(name, namespace=self.NAMESPACE)

    def _here(self) -> dict[str, Any]:
        """Options that keep an actor on the server's own node: other nodes may go, the server's may not."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self._ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False)}

    def put(self, states: Mapping[str, SideState]) -> None:
        """See `Hub`. What is left together is one object of Ray's."""
        arrays = {
            key: (state.weights.numpy(), None if state.moments is None else state.moments.numpy())
            for key, state in states.items()
        }
        reference = self._ray.put(arrays)
        self._ray.get(self._directory.put.remote({key: [reference] for key in states}))

    def get(self, key: str) -> SideState:
        """See `Hub`. The tensors are read-only views of shared memory; those left together last are at hand."""
        if key not in self._held:
            [reference] = self._ray.get(self._directory.get.remote(key))
            self._held = self._fetched([key], [reference])
        return self._held[key]

    def take(self, keys: Sequence[str]) -> dict[str, SideState]:
        """See `Hub`. The tensors are read-only views of shared memory."""
        references = [reference for [reference] in self._ray.get(self._directory.take.remote(list(keys)))]
        found = self._fetched(keys, list(dict.fromkeys(references)))
        return {key: found[key] for key in keys}

    def _fetched(self, keys: Sequence[str], references: list[Any]) -> dict[str, SideState]:
        """All models of some objects."""
        try:
            objects = self._ray.get(references)
        except self._ray.exceptions.ObjectLostError as error:
            raise ModelLost(f"{' and '.join(keys)} gone with the process that left it") from error
        return {
            key: SideState(_view(weights), None if moments is None else _view(moments))
            for arrays in objects
            for key, (weights, moments) in arrays.items()
        }

    def start_host(self, make_host: Callable[[], ServerHost]) -> None:
        """See `Hub`. The host gets an actor of its own, which builds it while the caller goes on.

        It takes none of Ray's counted resources: Flower sizes its pool from a node's totals, so whatever the host
        took would be missing under a worker that then waits for ever. It sees the GPUs all the same (see
        `flsplit/__init__.py`).
        """
        actor = self._ray.remote(num_cpus=0, num_gpus=0)(HostActor)
        name = self.address.removeprefix("ray:") + "-host"
        self._host = actor.options(name=name, namespace=self.NAMESPACE, **self._here()).remote(make_host)

    def host_link(self) -> Link:
        """See `Hub`."""
        if self._host is None:
            name = self.address.removeprefix("ray:") + "-host"
            self._host = self._ray.get_actor(name, namespace=self.NAMESPACE)
        return ActorLink(self._host)

    def report(self, client: int, tally: Tally, host: Host) -> None:
        """See `Hub`."""
        if _due(self):
            self._directory.report.remote(client, tally.as_dict(), host.mean_loss(client))

    def progress(self) -> Progress:
        """See `Hub`."""
        reports = self._ray.get(self._directory.progress.remote())
        return {client: (Tally(**tally), loss) for client, (tally, loss) in reports.items()}

    def new_round(self) -> None:
        """See `Hub`."""
        self._directory.new_round.remote()

    def close(self) -> None:
        """End the actors."""
        for actor in (self._directory, self._host):
            if actor is not None:
                self._ray.kill(actor)


class HostActor:
    """A `ServerHost` behind a Ray actor's door; what leaves it lies on the CPU."""

    def __init__(self, make_host: Callable[[], ServerHost]) -> None:
        self._host = make_host()

    def begin(self, state: SideState, *, shared: bool) -> None:
        """See `ServerHost.begin`."""
        self._host.begin(state, shared=shared)

    def open(self, client: int) -> None:
        """See `ServerHost.open`."""
        self._host.open(client)

    def step(self, uplink: Any) -> Any:
        """See `ServerHost.step`."""
        return self.step_jointly([uplink])[0]

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


def connect(address: str) -> Hub:
    """Find the hub that a message names, from whatever process the message has reached."""
    if address not in _local:
        if not address.startswith("ray:"):
            raise RuntimeError(f"no hub at {address} in this process")
        _local.clear()  # one run at a time in a worker
        _local[address] = RayHub(address.removeprefix("ray:"))
    return _local[address]


# The hubs that this process knows, by address (part of the per-process cache, see `flsplit.client.worker`).
_local: dict[str, Hub] = {}


def _due(hub: Any) -> bool:
    now = time.monotonic()
    if now - hub._reported < REPORT_EVERY:
        return False
    hub._reported = now
    return True


def _view(array: np.ndarray) -> torch.Tensor:
    """A tensor over read-only shared memory; nothing in flsplit writes to a state."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)
