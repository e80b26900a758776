"""Parallel split learning (Jeon and Kim, ICOIN 2020): all clients' batches make one server-side update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from flsplit.errors import UserError
from flsplit.ledger.moves import Moves
from flsplit.server.federation import Federation
from flsplit.server.strategy import Strategy


class Parallel(Strategy):
    """Clients run in lockstep; the loss of a step is the mean over all clients' activations, concatenated.

    With `compressor.scope=cohort` it is the mean over the clusters that all clients' samples make together.

    Args:
        sync: `gradient`: client-side gradients are summed, which is the gradient of that loss, and all clients take
            the same step; each sends its gradient and receives the sum in every step. `round`: each client steps
            its own client-side model, and these are averaged at the end of the round.
        options: see `Strategy`.
    """

    placements: ClassVar[tuple[str, ...]] = ("central",)
    meets = True

    def __init__(self, *, sync: str = "gradient", **options: Any) -> None:
        super().__init__(**options)
        if sync not in ("gradient", "round"):
            raise UserError(f"strategy.sync must be gradient or round, got {sync!r}")
        self.one_client_model = sync == "gradient"
        if self.one_client_model and self.bound.max_update_norm is not None:
            raise UserError("strategy.max_update_norm needs strategy.sync=round: with gradient no client has an update")
        if self.one_client_model and self.aggregator.name != "fedavg":
            raise UserError(
                "strategy.aggregator must be fedavg with strategy.sync=gradient, where no models are averaged, got "
                f"{self.aggregator.name}"
            )
        self.moves = Moves(down=1, step=2) if self.one_client_model else Moves(down=1, up=1)

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """See `Strategy`."""
        with fed.shared_server_model():
            if self.one_client_model:
                fed.client_model = fed.handed_in(fed.train_as_one(clients), clients)
            else:
                fed.client_model, _ = fed.average(fed.train_cohort(clients, turns="joint"))
