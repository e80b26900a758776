"""Centralized training, the upper bound: all data in one place, one training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from flsplit.config.schema import Config
from flsplit.ledger.moves import Moves
from flsplit.server.federation import Federation
from flsplit.server.strategy import Strategy


class Centralized(Strategy):
    """One client has all samples and keeps its model: `clients`, `clients_per_round` and `partition` play no part.

    With the compressor between its blocks, this is to the bit the plain loop over the uncut model; `base` leaves
    that model alone. What would cross the split point is counted, models are not: none moves.
    """

    placements: ClassVar[tuple[str, ...]] = ("replica",)
    moves = Moves()
    note = "centralized: one client has all data; clients and partition play no part"

    def __init__(self) -> None:
        super().__init__()

    def adapt(self, config: Config) -> Config:
        """See `Strategy`."""
        partition = {"name": "iid", "holdout": config.partition.get("holdout", 0.0)}
        return replace(config, clients=1, clients_per_round=None, partition=partition)

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """See `Strategy`."""
        fed.client_model, fed.server_model = fed.average(fed.train(clients))
