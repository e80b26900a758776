"""What a Flower `train` message asks of a client process, and what it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from flsplit.ledger.prices import Tally

Kept = dict[str, str]  # field of a `SideState` -> file that a client has left


@dataclass(frozen=True, kw_only=True)
class Task:
    """Which clients the receiver runs in a round, how, and where their models are.

    Attributes:
        round: from 1.
        attempt: at the round, from 0.
        clients: who is run: one, or a cohort.
        turns: how a cohort takes its turns, by name; see `flsplit.client.turns`.
        relay: whether each client starts with the client-side model of the one before it.
        client_model: key of the client-side model at the hub.
        server_model: key of the server-side model to step a replica of (placement `replica`), or None: the
            central host has it.
        kept: files with what clients have kept from earlier rounds, by client.
        keep: fields of its `SideState` that each client keeps again; where `weights` is one of them, they stay with
            it and do not go back to the server.
        place: where it keeps them, with `{client}` and `{field}` in it.
        keep_moments: whether moments return with a replica, or with the one client-side model that all share.
        limits: bits that each client may still send; None without a budget.
        most: steps that clients take at most, where there is time for fewer than they would.
    """

    round: int
    attempt: int = 0
    clients: tuple[int, ...]
    turns: str = "whole"
    relay: bool = False
    client_model: str
    server_model: str | None
    kept: dict[int, Kept] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    place: str = ""
    keep_moments: bool = True
    limits: dict[int, int] | None = None
    most: dict[int, int] | None = None

    def file(self, client: int, field: str) -> str:
        """Where `client` keeps a field."""
        return self.place.format(client=client, field=field)

    @property
    def needs(self) -> list[str]:
        """Keys of the models at the hub that the task starts from."""
        return [key for key in (self.client_model, self.server_model) if key is not None]

    def to_json(self) -> str:
        """Text from which `from_json` makes the same task."""
        return json.dumps(vars(self))

    @staticmethod
    def from_json(text: str) -> Task:
        """The inverse of `to_json`."""
        values = json.loads(text)
        for name in ("clients", "keep"):
            values[name] = tuple(values[name])
        for name in ("kept", "limits", "most"):
            if values[name] is not None:
                values[name] = {int(client): value for client, value in values[name].items()}
        return Task(**values)


class Sent(NamedTuple):
    """Bits of a step that have crossed, sent again or not; 0 what a client that failed has not come to.

    `finished` says whether the client has gone backward with what came down, and its gradient, where all clients step
    one client-side model, is in their sum.
    """

    up: int = 0
    down: int = 0
    proposal: int = 0
    grouping: int = 0
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """How one client's round went.

    Attributes:
        client: who.
        tally: steps taken and bits sent.
        sent: the bits step by step, one begun and not finished included.
        client_model: key of its model at the hub; None if it failed or keeps its model.
        server_model: key of its replica of the server-side model, if it has one.
        kept: files with what it keeps.
        error: why it failed, in one line; None if it did not.
        refused: whether it failed by what it had brought, which came up before.
        came_down: bits of models that had come to it when the time of the round was over; None for all.
        fatal: whether nobody else could go on after that either.
        diverged: whether it failed because its numbers are not finite.
    """

    client: int
    tally: Tally
    sent: tuple[Sent, ...] = ()
    client_model: str | None = None
    server_model: str | None = None
    kept: Kept = field(default_factory=dict)
    error: str | None = None
    refused: bool = False
    came_down: int | None = None
    fatal: bool = False
    diverged: bool = False

    @property
    def finished(self) -> int:
        """Steps that it has finished, see `Sent`."""
        return sum(sent.finished for sent in self.sent)

    @property
    def came_up(self) -> bool:
        """Whether the models that a client brings back have crossed."""
        return self.error is None or self.refused
