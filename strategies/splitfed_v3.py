"""SplitFed V3 (Gawali et al., arXiv 2012.12591): personal client-side models, averaged server-side replicas."""

from __future__ import annotations

from collections.abc import Sequence

from flsplit.ledger.moves import Moves
from flsplit.server.federation import Federation
from flsplit.server.strategy import Strategy


class SplitFedV3(Strategy):
    """Every client keeps its client-side model for itself and steps its own copy of the server-side model."""

    moves = Moves(first=1)
    side_by_side = True

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """See `Strategy`."""
        _, fed.server_model = fed.average(fed.train(clients, personal=True))
