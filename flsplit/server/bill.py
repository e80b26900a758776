"""What a round costs each client, attempts at it included that came to nothing."""

from __future__ import annotations

from flsplit.ledger.moves import ModelSize, Moves
from flsplit.ledger.prices import Tally
from flsplit.network import Spent
from flsplit.server.account import Account
from flsplit.transport.task import Report


class Bill:
    """Of the round at hand, item by item.

    Args:
        account: is charged as items come.
        moves: models that the strategy moves.
        size: of one of them.

    Attributes:
        account: of what clients may send, and who has had its first models.
        tallies: steps, by client.
        sync_bits: bits of models that moved between a client and the server, by client.
        last: the attempt at which each client has taken part last, and its report.
        time: how clients have spent simulated time; empty without a network.
    """

    def __init__(self, account: Account, moves: Moves, size: ModelSize) -> None:
        self.account, self._moves, self._size = account, moves, size
        self.begin()

    def begin(self) -> None:
        """Start that of another round."""
        self.tallies: dict[int, Tally] = {}
        self.sync_bits: dict[int, int] = {}
        self.last: dict[int, tuple[int, Report]] = {}
        self.time: dict[int, Spent] = {}

    def add(self, report: Report, attempt: int) -> None:
        """What a client has sent and received, the models that moved with it, and what that leaves of its budget."""
        client, tally = report.client, report.tally
        first = client not in self.account.acquainted
        moved = self._moves.bits(
            self._size, first=first, steps=report.finished, came_up=report.came_up, came_down=report.came_down
        )
        if self._moves.arrived(self._size, first=first, came_down=report.came_down)[1]:
            self.account.acquainted.add(client)
        self.last[client] = attempt, report
        self.tallies[client] = self.tallies.get(client, Tally()) + tally
        self.sync_bits[client] = self.sync_bits.get(client, 0) + moved
        self.account.charge(client, tally, moved)

    def add_time(self, client: int, spent: Spent) -> None:
        """How a client has spent an attempt."""
        self.time[client] = self.time.get(client, Spent()) + spent
