"""A checked configuration and what has been found out for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from flsplit.config.schema import Config
from flsplit.ledger.moves import Moves
from flsplit.typed import read


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked configuration and what has been found out for it; it travels to every worker as JSON.

    Attributes:
        config: what the user asked for.
        data: folder of the dataset's tables on this machine.
        clients: file with every client's sample indices (`flsplit.data.save_clients`).
        device: `cpu` or `cuda`.
        image_size: side of the model's input, pixels.
        moves: models that the strategy moves.
        split: whether activations cross.
        placement: where server-side models are stepped, see `Strategy`.
        proximal_mu: weight of FedProx's proximal term.
        logit_adjustment: strength of the adjustment to each client's labels, see `LogitAdjustment`; 0 for none.
        profiles: clients that differ from the others, by number (as text, for JSON): the values of a `Profile`.
        made: when, in ns, so that nothing that a process keeps for a plan serves another one: the same keys may mean
            another file of weights by then, or other code.
    """

    config: Config
    data: str
    clients: str
    device: str
    image_size: int
    moves: Moves
    split: bool
    placement: str
    proximal_mu: float
    logit_adjustment: float
    personal_buffers: bool
    profiles: dict[str, Any]
    made: int

    def to_json(self) -> str:
        """Text from which `from_json` makes the same plan."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Plan:
        """The inverse of `to_json`."""
        return read(Plan, json.loads(text))
