"""A link carries one client's steps to a host, wherever the host is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from flsplit.errors import RunFailed
from flsplit.split.host import Closed
from flsplit.split.messages import Downlink, Grouping, Message, Proposal, Uplink
from flsplit.split.side import SideState

M = TypeVar("M", bound=Message)


class Host(Protocol):
    """The host as far as a client's round begins and ends there."""

    def begin(self, state: SideState, *, shared: bool) -> None:
        """Start a round from `state`."""

    def open(self, client: int) -> None:
        """Make the host ready for the client's steps."""

    def mean_loss(self, client: int) -> float:
        """Mean loss of the client's steps so far, for display; NaN where asking would cost a round trip."""

    def close(self, client: int, *, moments: bool) -> Closed:
        """End the client's round at the host."""


class Link(Host, Protocol):
    """The host as seen from anywhere; `ServerHost` itself is one (placement `replica`, or in-process)."""

    def shared_state(self, *, moments: bool) -> SideState:
        """The shared server-side model as it is now."""

    def plan(self, proposals: Sequence[Proposal]) -> list[Grouping]:
        """Send several clients' proposals for one step together, wait for how they are to compress."""

    def step(self, uplink: Uplink) -> Downlink:
        """Send an uplink, wait for its downlink."""

    def step_jointly(self, uplinks: Sequence[Uplink]) -> list[Downlink]:
        """Send several clients' uplinks for one step together, wait for their downlinks."""


class HostLost(RunFailed):
    """The process of the central host is gone, and the shared server-side model with it."""


class ActorLink:
    """A link to a `ServerHost` that lives in a Ray actor; tensors travel through Ray's object store."""

    def __init__(self, actor: Any) -> None:
        import ray

        self._actor = actor

        def get(call: Any) -> Any:
            try:
                return ray.get(call)
            except ray.exceptions.RayActorError as error:
                raise HostLost("the central host, a process of its own, has died") from error

        self._get = get

    def begin(self, state: SideState, *, shared: bool) -> None:
        """See `Link`."""
        self._get(self._actor.begin.remote(state, shared=shared))

    def shared_state(self, *, moments: bool) -> SideState:
        """See `Link`."""
        return self._get(self._actor.shared_state.remote(moments=moments))

    def open(self, client: int) -> None:
        """See `Link`."""
        self._get(self._actor.open.remote(client))

    def plan(self, proposals: Sequence[Proposal]) -> list[Grouping]:
        """See `Link`."""
        return self._get(self._actor.plan.remote([on_cpu(proposal) for proposal in proposals]))

    def step(self, uplink: Uplink) -> Downlink:
        """See `Link`."""
        return self._get(self._actor.step.remote(on_cpu(uplink)))

    def step_jointly(self, uplinks: Sequence[Uplink]) -> list[Downlink]:
        """See `Link`."""
        return self._get(self._actor.step_jointly.remote([on_cpu(uplink) for uplink in uplinks]))

    def mean_loss(self, client: int) -> float:
        """See `Link`."""
        return float("nan")

    def close(self, client: int, *, moments: bool) -> Closed:
        """See `Link`."""
        return self._get(self._actor.close.remote(client, moments=moments))


def on_cpu(message: M) -> M:
    """The same message with its tensors on the CPU."""
    sent = message.payload
    labels = None if sent.labels is None else sent.labels.cpu()
    floats, integers = tuple(t.cpu() for t in sent.floats), tuple(t.cpu() for t in sent.integers)
    return replace(message, payload=replace(sent, floats=floats, integers=integers, labels=labels))
