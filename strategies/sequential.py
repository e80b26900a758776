"""Split learning by relay (Gupta and Raskar 2018, arXiv 1810.06060): one model that passes from client to client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from flsplit.server.federation import Federation
from flsplit.server.strategy import Strategy


class Sequential(Strategy):
    """Clients train one after another, in a seeded random order, each with the client-side model of the one before.

    The server relays it: one upload and one download per client. Nothing is averaged.
    """

    placements: ClassVar[tuple[str, ...]] = ("central",)

    def __init__(self) -> None:
        super().__init__()

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """See `Strategy`."""
        order = fed.shuffled(clients)
        with fed.shared_server_model():
            fed.client_model = fed.handed_in(fed.train_cohort(order, relay=True), order)
