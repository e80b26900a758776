"""A hub in a small named Ray actor, which every process of a cluster finds; for grids that take nothing along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from flsplit.ledger.prices import Tally
from flsplit.split.host import ServerHost
from flsplit.split.side import SideState
from flsplit.transport.directory import Directory
from flsplit.transport.host_actor import NAMESPACE, NamedHost, here
from flsplit.transport.hub import ModelLost, Pace, Progress
from flsplit.transport.link import Host, Link
from flsplit.transport.objects import from_arrays, to_arrays


class NamedHub:
    """A hub for the processes of a Ray cluster; the server makes it, workers connect by its address.

    Args:
        address: None: the actor is made, and the hub has a new address.
    """

    def __init__(self, address: str | None = None) -> None:
        import ray

        self._ray = ray
        self.address = address or f"actor:flsplit-{uuid4().hex[:12]}"
        self.on_report: Callable[[], None] | None = None
        self._pace, self._host = Pace(), NamedHost(f"{self.address.partition(':')[2]}-host")
        self._held: dict[str, SideState] = {}
        name = self.address.removeprefix("actor:")
        if address is None:
            actor = ray.remote(num_cpus=0)(Directory)
            self._directory = actor.options(name=name, namespace=NAMESPACE, **here()).remote()
        else:
            self._directory = ray.get_actor(name, namespace=NAMESPACE)

    def put(self, states: Mapping[str, SideState]) -> None:
        """See `Hub`. What is left together is one object of Ray's."""
        reference = self._ray.put(to_arrays(states))
        self._ray.get(self._directory.put.remote({key: [reference] for key in states}))

    def get(self, key: str) -> SideState:
        """See `Hub`. The tensors are read-only views of shared memory; those left together last are at hand."""
        if key not in self._held:
            [reference] = self._ray.get(self._directory.get.remote(key))
            self._held = self._fetched([key], [reference])
        return self._held[key]

    def take(self, keys: Sequence[str]) -> dict[str, SideState]:
        """See `ServerHub`. The tensors are read-only views of shared memory."""
        references = [reference for [reference] in self._ray.get(self._directory.take.remote(list(keys)))]
        found = self._fetched(keys, list(dict.fromkeys(references)))
        return {key: found[key] for key in keys}

    def _fetched(self, keys: Sequence[str], references: list[Any]) -> dict[str, SideState]:
        """All models of some objects."""
        try:
            return from_arrays(self._ray.get(references))
        except self._ray.exceptions.ObjectLostError as error:
            raise ModelLost(f"{' and '.join(keys)} gone with the process that left it") from error

    def start_host(self, make_host: Callable[[], ServerHost]) -> None:
        """See `ServerHub`."""
        self._host.start(make_host)

    def host_link(self) -> Link:
        """See `Hub`."""
        return self._host.link()

    def report(self, client: int, tally: Tally, host: Host) -> None:
        """See `Hub`."""
        if self._pace.due():
            self._directory.report.remote(client, tally.as_dict(), host.mean_loss(client))

    def progress(self) -> Progress:
        """See `ServerHub`."""
        reports = self._ray.get(self._directory.progress.remote())
        return {client: (Tally(**tally), loss) for client, (tally, loss) in reports.items()}

    def new_round(self) -> None:
        """See `ServerHub`."""
        self._directory.new_round.remote()

    def close(self) -> None:
        """End the actors."""
        self._ray.kill(self._directory)
        self._host.end()
