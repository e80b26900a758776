"""FedAvg (McMahan et al., AISTATS 2017): the whole model at the client, nothing is split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from flsplit.config.schema import Config
from flsplit.errors import UserError
from flsplit.ledger.moves import Moves
from flsplit.server.federation import Federation
from flsplit.server.strategy import Strategy


class FedAvg(Strategy):
    """Every client trains a whole model; models are averaged at the end of the round.

    A client's two halves are what SplitFed V1 trains without compression, in one place, so no activation is sent.
    """

    placements: ClassVar[tuple[str, ...]] = ("replica",)
    moves = Moves(down=1, up=1, whole=True)
    split = False
    side_by_side = True
    note = "fedavg: clients hold the whole model; compressor, quantizer and channel play no part"

    def adapt(self, config: Config) -> Config:
        """See `Strategy`."""
        if config.budget.base_epochs is not None and not config.budget.count_models:
            raise UserError("budget.count_models must be true for fedavg: models are all that it sends")
        return replace(config, compressor={"name": "base"}, quantizer={"name": "none"}, channel={"name": "clean"})

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """See `Strategy`."""
        fed.client_model, fed.server_model = fed.average(fed.train(clients))
