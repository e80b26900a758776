"""Rounds of a strategy, each tried once more where too few clients come to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor

from flsplit.server.account import Account
from flsplit.server.federation import Federation
from flsplit.server.roll import TooFew
from flsplit.server.strategy import Strategy

ATTEMPTS = 2  # at a round


class Attempts:
    """Has a strategy run one round after another, and knows its state between them.

    Args:
        strategy: with its aggregator, as the run begins or goes on.
        make: makes another like it, with nothing in it yet.
        federation: that it acts on.
        account: of what clients may send.
        fewest: clients that a round takes.
        note: says a line to the user.
    """

    def __init__(
        self, strategy: Strategy, make: Callable[[], Strategy], federation: Federation, account: Account, *,
        fewest: int, note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._strategy, self._make, self._aggregator = strategy, make, strategy.aggregator
        self._fed, self._account, self._fewest, self._note = federation, account, fewest, note
        self.keep()

    def keep(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What strategy and aggregator carry on, as it is now; a round that is repeated begins with it."""
        self._states = deepcopy(self._strategy.state_dict()), self._aggregator.state()
        return self._states

    def play(self, number: int, clients: Sequence[int], begin: Callable[[Sequence[int]], None]) -> None:
        """Have the strategy run a round; where too few clients are left, once more from the same models.

        If the budget does not pay for that, the round brings nothing but its costs.

        Args:
            number: of the round.
            clients: that take part.
            begin: is told who takes part in an attempt.

        Raises:
            RunFailed: if the round cannot be.
        """
        fed = self._fed
        models, kept, now = (fed.client_model, fed.server_model), fed.kept, fed.now
        for attempt in range(ATTEMPTS):
            fed.client_model, fed.server_model = models
            if self._strategy.keeps_time:
                fed.now = now
            fed.kept = dict(kept)
            fed.begin(number, attempt=attempt)
            begin(clients)
            try:
                self._strategy.round(fed, clients)
                return fed.finish()
            except TooFew as error:
                if attempt + 1 == ATTEMPTS:
                    raise
                able = set(self._account.able())
                clients = [client for client in clients if client in able]
                self._take_back()
                if len(clients) < self._fewest:
                    self._note(f"{error}; the budget does not pay for another attempt, so models stay as they were")
                    (fed.client_model, fed.server_model), fed.kept = models, dict(kept)
                    return None
                self._note(f"{error}; the round is repeated")
        return None

    def _take_back(self) -> None:
        """Have strategy and aggregator as they were before the round."""
        state, aggregator = self._states
        self._strategy = self._make()
        self._strategy.aggregator = self._aggregator
        self._aggregator.load(aggregator)
        self._strategy.load_state_dict(deepcopy(state))
