"""Where the processes of one experiment meet: models by reference, the central host, and progress.

Flower messages carry control; whole models and central steps go through a hub. Each engine has its own: `LocalHub` is
a dictionary in the server's process, `flsplit.transport.ray_hub` hands references on beside the messages of a grid of
ours, `flsplit.transport.named_hub` keeps them in an actor, since Flower's own grid takes nothing along. A message names
its hub by an address, `connect` finds it in whatever process it arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Protocol

from flsplit.ledger.prices import Tally
from flsplit.split.host import ServerHost
from flsplit.split.side import SideState
from flsplit.transport.link import Host, Link

REPORT_EVERY = 0.25  # seconds between two progress reports of a process
Progress = dict[int, tuple[Tally, float]]  # client -> (its round so far, mean loss so far)


class ModelLost(Exception):
    """A model that cannot be had any more: the process that left it, or its machine, is gone."""


class Hub(Protocol):
    """A hub as clients see it."""

    address: str

    def put(self, states: Mapping[str, SideState]) -> None:
        """Leave models under their keys; a key is used once."""

    def get(self, key: str) -> SideState:
        """The model under `key`, which stays there; one that the message names, or that this process has left.

        Raises:
            ModelLost: see there.
        """

    def host_link(self) -> Link:
        """A link to the central host."""

    def report(self, client: int, tally: Tally, host: Host) -> None:
        """Tell how far `client` has come in this round; most calls are dropped, so that it costs nothing."""


class ServerHub(Protocol):
    """A hub as the server sees it."""

    address: str
    on_report: Callable[[], None] | None  # called after a report where that happens in the server's process

    def put(self, states: Mapping[str, SideState]) -> None:
        """Leave models under their keys; a key is used once."""

    def take(self, keys: Sequence[str]) -> dict[str, SideState]:
        """The models under `keys`, which are forgotten.

        Raises:
            ModelLost: see there; of all of them, where one is gone.
        """

    def start_host(self, make_host: Callable[[], ServerHost]) -> None:
        """Start the central host (placement `central`)."""

    def host_link(self) -> Link:
        """A link to the central host."""

    def progress(self) -> Progress:
        """The latest reports of this round."""

    def new_round(self) -> None:
        """Forget the models and the reports of the last round."""


class Pace:
    """Lets through what comes `REPORT_EVERY` seconds after the last that it let through."""

    def __init__(self) -> None:
        self._last = 0.0

    def due(self) -> bool:
        """Whether it is time again."""
        now = time.monotonic()
        if now - self._last < REPORT_EVERY:
            return False
        self._last = now
        return True


class LocalHub:
    """A hub for one process."""

    _numbers = count()

    def __init__(self) -> None:
        self.address = f"local:{next(self._numbers)}"
        self.on_report: Callable[[], None] | None = None
        self.host: ServerHost | None = None
        self._states: dict[str, SideState] = {}
        self._progress: Progress = {}
        self._pace = Pace()
        register(self)

    def put(self, states: Mapping[str, SideState]) -> None:
        """See `Hub` and `ServerHub`."""
        self._states |= states

    def get(self, key: str) -> SideState:
        """See `Hub` and `ServerHub`."""
        return self._states[key]

    def take(self, keys: Sequence[str]) -> dict[str, SideState]:
        """See `Hub` and `ServerHub`."""
        return {key: self._states.pop(key) for key in keys}

    def start_host(self, make_host: Callable[[], ServerHost]) -> None:
        """See `Hub` and `ServerHub`."""
        self.host = make_host()

    def host_link(self) -> Link:
        """See `Hub` and `ServerHub`."""
        assert self.host is not None, "placement `replica` has no central host"
        return self.host

    def report(self, client: int, tally: Tally, host: Host) -> None:
        """See `Hub` and `ServerHub`."""
        if self._pace.due():
            self._progress[client] = (tally, host.mean_loss(client))
            if self.on_report is not None:
                self.on_report()

    def progress(self) -> Progress:
        """See `Hub` and `ServerHub`."""
        return self._progress

    def new_round(self) -> None:
        """See `Hub` and `ServerHub`."""
        self._states, self._progress = {}, {}

    def close(self) -> None:
        """Let go of everything."""
        _local.pop(self.address, None)


def register(hub: Hub) -> None:
    """Have `connect` find a hub in this process."""
    _local[hub.address] = hub


def connect(address: str) -> Hub:
    """Find the hub that a message names, from whatever process the message has reached."""
    if address not in _local:
        if not address.startswith("actor:"):
            raise RuntimeError(f"no hub at {address} in this process")
        from flsplit.transport.named_hub import NamedHub

        _local.clear()  # one run at a time in a worker
        register(NamedHub(address))
    return _local[address]


# The hubs that this process knows, by address (part of the per-process cache, see `flsplit.client.worker`).
_local: dict[str, Hub] = {}
