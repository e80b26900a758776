"""What a Flower `train` message asks of a client process, and what it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from flsplit.ledger.prices import Tally

TURNS = ("whole", "step", "joint", "gradient", "stacked")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Which clients the receiver runs in a round, how, and where their models are.

    Attributes:
        round: from 1.
        clients: who is run: one, or a cohort.
        turns: `whole`: one client to its end, then the next; `step`: a batch of each in turn; `joint`: a batch of
            all at a time, with one server-side update on their concatenated activations; `gradient`: the same, and
            one update of one client-side model with the sum of their gradients; `stacked`: a batch of each at a
            time, every client with models of its own, computed as one.
        relay: whether each client starts with the client-side model of the one before it.
        client_model: key of the client-side model at the hub.
        server_model: key of the server-side model to step a replica of (placement `replica`), or None: the
            central host has it.
        moments: files with the optimizer moments of those clients that have any, by client.
        moments_out: where to leave them, with `{client}` in it, or None: they are not kept.
        models: files with the client-side models of those clients that have one of their own.
        models_out: where to leave these, with `{client}` in it, or None: models go back to the server.
        keep_moments: whether moments return with a replica, or with the one client-side model of `gradient`.
        limits: bits that each client may still send; None without a budget.
    """

    round: int
    clients: tuple[int, ...]
    turns: str = "whole"
    relay: bool = False
    client_model: str
    server_model: str | None
    moments: dict[int, str] = field(default_factory=dict)
    moments_out: str | None = None
    models: dict[int, str] = field(default_factory=dict)
    models_out: str | None = None
    keep_moments: bool = True
    limits: dict[int, int] | None = None

    def to_json(self) -> str:
        """Text from which `from_json` makes the same task."""
        return json.dumps(vars(self))

    @staticmethod
    def from_json(text: str) -> Task:
        """The inverse of `to_json`."""
        values = json.loads(text)
        values["clients"] = tuple(values["clients"])
        for name in ("moments", "models", "limits"):
            if values[name] is not None:
                values[name] = {int(client): value for client, value in values[name].items()}
        return Task(**values)


@dataclass(frozen=True, kw_only=True)
class Report:
    """How one client's round went.

    Attributes:
        client: who.
        tally: steps taken and bits sent.
        client_model: key of its model at the hub; None if it failed or keeps its model.
        server_model: key of its replica of the server-side model, if it has one.
        moments: file with its optimizer moments, if they are kept.
        model: file with the model that it keeps, if it does.
        error: why it failed, in one line; None if it did not.
    """

    client: int
    tally: Tally
    client_model: str | None = None
    server_model: str | None = None
    moments: str | None = None
    model: str | None = None
    error: str | None = None
