"""What clients have been charged of the budget, and what they may still send."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from flsplit.assembly import Costs
from flsplit.ledger.prices import Tally


class Account:
    """One run's; it has the charges of every attempt at a round as they come.

    Args:
        costs: of the run.
        charged: bits that each client has been charged before; empty for a new run.
        acquainted: clients that have had their first models before.

    Attributes:
        charged: bits that each client has been charged so far; empty without a budget.
        acquainted: clients that have had their first models so far, whole.
    """

    def __init__(self, costs: Costs, charged: Mapping[int, int], acquainted: Collection[int]) -> None:
        self._costs, self._budget = costs, costs.budget
        self.charged, self.acquainted = dict(charged), set(acquainted)

    @property
    def clients(self) -> range:
        """All that there are."""
        return range(self._costs.config.clients)

    def charge(self, client: int, tally: Tally, sync_bits: int) -> None:
        """Charge a client for what has moved between it and the server."""
        if self._budget is not None:
            self.charged[client] = self.charged.get(client, 0) + self._budget.cost(tally, sync_bits)

    def able(self) -> list[int]:
        """Clients that may train on, ascending."""
        config = self._costs.config
        if self._budget is None:
            return list(self.clients)
        return self._budget.able(self.charged, self.acquainted, config.taking_part)

    def limits(self, clients: Sequence[int]) -> dict[int, int] | None:
        """Bits that each of `clients` may send if they train together now; None without a budget."""
        if self._budget is None:
            return None
        steps = {client: self._costs.steps(client) for client in clients}
        return self._budget.limits(self.charged, self.acquainted, steps)
