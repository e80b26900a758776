"""A hub whose models go along with the messages of a grid: as arguments of Ray calls there, in their results back.

So a message is one round trip, whatever it needs, and a model goes to a process once in a round. The server's end is
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
from flsplit.transport.hub import Pace, Progress
from flsplit.transport.link import Host, Link
from flsplit.transport.objects import Arrays, from_arrays, to_arrays

Note = tuple[int, dict[str, Any], float]  # a client, its tally and its mean loss so far


class RayHub:
    """The server's end.

    Args:
        host: that a hub before has left (`release`); None for a new one.
    """

    def __init__(self, host: NamedHost | None = None) -> None:
        import ray

        self._ray = ray
        self._host = host or NamedHost(f"flsplit-{uuid4().hex[:12]}")
        self.address = f"ray:{uuid4().hex[:12]}:{self._host.name}"
        self.on_report: Callable[[], None] | None = None
        self.round = 0
        self._references: dict[str, Any] = {}
        self._arrived: dict[str, SideState] = {}
        self._progress: Progress = {}

    def put(self, states: Mapping[str, SideState]) -> None:
        """See `ServerHub`. What is left together is one object of Ray's."""
        self._references |= dict.fromkeys(states, self._ray.put(to_arrays(states)))

    def references(self, keys: Iterable[str]) -> list[Any]:
        """The objects with the models under `keys`, each once."""
        return list(dict.fromkeys(self._references[key] for key in keys))

    def accept(self, models: Arrays) -> None:
        """Take over the models that a client process has left."""
        self._arrived |= from_arrays([models])

    def take(self, keys: Sequence[str]) -> dict[str, SideState]:
        """See `ServerHub`. The tensors are read-only views of shared memory."""
        return {key: self._arrived.pop(key) for key in keys}

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
        self.round += 1
        self._references, self._arrived, self._progress = {}, {}, {}

    def release(self) -> NamedHost | None:
        """The host, if it is idle, for another hub."""
        return self._host if self._host.lives() else None

    def close(self) -> None:
        """End the host."""
        self._host.end()


class ProcessHub:
    """The end in a client process, while a message is worked on.

    Args:
        address: of the hub.
        tell: called with what is to be shown of a client's progress.
    """

    def __init__(self, address: str, tell: Callable[[Note], None]) -> None:
        self.address, self._tell = address, tell
        self._pace, self._host = Pace(), NamedHost(address.rpartition(":")[2])
        self._round = -1
        self._given: dict[str, SideState] = {}  # in this round
        self._own: dict[str, SideState] = {}  # left by the message at hand
        self._left: Arrays = {}

    def receive(self, round: int, objects: Iterable[Arrays]) -> None:
        """Models that came with a message; those of the round before are forgotten."""
        if round != self._round:
            self._round, self._given = round, {}
        self._given |= from_arrays(objects)

    def left(self) -> Arrays:
        """What the message at hand has left, which is forgotten here."""
        left, self._left, self._own = self._left, {}, {}
        return left

    def put(self, states: Mapping[str, SideState]) -> None:
        """See `Hub`."""
        self._own |= states
        self._left |= to_arrays(states)

    def get(self, key: str) -> SideState:
        """See `Hub`. The tensors are read-only views of shared memory."""
        return self._own[key] if key in self._own else self._given[key]

    def host_link(self) -> Link:
        """See `Hub`."""
        return self._host.link()

    def report(self, client: int, tally: Tally, host: Host) -> None:
        """See `Hub`."""
        if self._pace.due():
            self._tell((client, tally.as_dict(), host.mean_loss(client)))
