"""SplitFed V1 (Thapa et al., AAAI 2022, Algorithm 1): parallel clients, a server-side replica for each."""

from __future__ import annotations

from collections.abc import Sequence

from flsplit.server.federation import Federation
from flsplit.server.strategy import Strategy


class SplitFedV1(Strategy):
    """Every client steps its own copy of the server-side model; both sides are averaged at the end of the round."""

    side_by_side = True

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """See `Strategy`."""
        fed.client_model, fed.server_model = fed.average(fed.train(clients))
