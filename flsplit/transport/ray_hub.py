"""A hub whose models go along with the messages of a grid: as arguments of Ray calls there, as their results back.

So a message is one round trip, whatever it needs, and no process has to keep the references. The server's end is
`RayHub`, that in a client process `ProcessHub`; between them is a grid such as `flsplit.engine.ray`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from flsplit.ledger.prices import Tally
from flsplit.split.host import ServerHost
from flsplit.split.side import SideState
from flsplit.transport.host_actor import NamedHost
from flsplit.transport.hub import ModelLost, Pace, Progress
from flsplit.transport.link import Host, Link
from flsplit.transport.objects import Arrays, from_arrays, to_arrays

Note = tuple[int, dict[str, Any], float]  # a client, its tally and its mean loss so far


class RayHub:
    """The server's end."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self.address = f"ray:flsplit-{uuid4().hex[:12]}"
        self.on_report: Callable[[], None] | None = None
        self._host = NamedHost(self.address)
        self._references: dict[str, Any] = {}
        self._progress: Progress = {}

    def put(self, states: Mapping[str, SideState]) -> None:
        """See `ServerHub`. What is left together is one object of Ray's."""
        self.accept(states, self._ray.put(to_arrays(states)))

    def accept(self, keys: Iterable[str], reference: Any) -> None:
        """Take over the models that a client process has left, in one object of Ray's."""
        self._references |= dict.fromkeys(keys, reference)

    def references(self, keys: Iterable[str]) -> list[Any]:
        """The objects with the models under `keys`, each once."""
        return list(dict.fromkeys(self._references[key] for key in keys))

    def take(self, keys: Sequence[str]) -> dict[str, SideState]:
        """See `ServerHub`. The tensors are read-only views of shared memory."""
        references = self.references(keys)
        for key in keys:
            del self._references[key]
        try:
            found = from_arrays(self._ray.get(references))
        except self._ray.exceptions.ObjectLostError as error:
            raise ModelLost(f"{' and '.join(keys)} gone with the process that left it") from error
        return {key: found[key] for key in keys}

    def start_host(self, make_host: Callable[[], ServerHost]) -> None:
        """See `ServerHub`."""
        self._host.start(make_host)

    def host_link(self) -> Link:
        """See `ServerHub`."""
        return self._host.link()

    def note(self, notes: Iterable[Note]) -> None:
        """Take in how far clients have come."""
        self._progress |= {client: (Tally(**tally), loss) for client, tally, loss in notes}

    def progress(self) -> Progress:
        """See `ServerHub`."""
        return dict(self._progress)

    def new_round(self) -> None:
        """See `ServerHub`."""
        self._references, self._progress = {}, {}

    def close(self) -> None:
        """End the host."""
        self._host.stop()


class ProcessHub:
    """The end in a client process, while a message is worked on.

    Args:
        address: of the hub.
        tell: called with what is to be shown of a client's progress.
    """

    def __init__(self, address: str, tell: Callable[[Note], None]) -> None:
        self.address, self._tell = address, tell
        self._pace, self._host = Pace(), NamedHost(address)
        self._models: dict[str, SideState] = {}
        self._left: Arrays = {}

    def receive(self, objects: Iterable[Arrays]) -> None:
        """The models that came with a message; those of the message before are forgotten."""
        self._models, self._left = from_arrays(objects), {}

    def left(self) -> Arrays:
        """What has been left since then."""
        return self._left

    def put(self, states: Mapping[str, SideState]) -> None:
        """See `Hub`."""
        self._models |= states
        self._left |= to_arrays(states)

    def get(self, key: str) -> SideState:
        """See `Hub`. The tensors are read-only views of shared memory."""
        return self._models[key]

    def host_link(self) -> Link:
        """See `Hub`."""
        return self._host.link()

    def report(self, client: int, tally: Tally, host: Host) -> None:
        """See `Hub`."""
        if self._pace.due():
            self._tell((client, tally.as_dict(), host.mean_loss(client)))
