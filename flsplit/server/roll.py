"""Who takes part in a round: each client once, all reports taken, and enough clients left at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from flsplit.errors import RunFailed
from flsplit.transport.task import Report


class TooFew(RunFailed):
    """Fewer clients have come to the end of a round than it takes; it may be tried once more."""


class Roll:
    """Holds a strategy to what its round must do.

    Args:
        clients: all there are.
        fewest: `min_clients`.

    Attributes:
        reports: of the clients run so far in this round.
    """

    def __init__(self, clients: Collection[int], fewest: int) -> None:
        self._clients, self._fewest = clients, fewest
        self.begin(0)

    def begin(self, round: int) -> None:
        """Start an attempt at a round."""
        self._round, self._open = round, 0
        self.reports: list[Report] = []

    def call(self, clients: Sequence[int]) -> None:
        """Refuse to train who is not there, or twice.

        Raises:
            RunFailed: naming the client.
        """
        times = Counter([*(report.client for report in self.reports), *clients])
        for client in clients:
            if client not in self._clients:
                raise RunFailed(f"the strategy trains client {client}; there are 0 to {len(self._clients) - 1}")
        if again := [client for client in clients if times[client] > 1]:
            raise RunFailed(
                f"the strategy trains client {min(again)} twice in round {self._round}; a client has one row, and one "
                "share of the budget, in a round"
            )

    def taken(self, reports: Iterator[Report]) -> Iterator[Report]:
        """`reports`, with a note whether they are taken to the last."""
        self._open += 1

        def handed_on() -> Iterator[Report]:
            yield from reports
            self._open -= 1

        return handed_on()

    def enough(self, reports: Iterable[Report]) -> None:
        """Refuse to go on with fewer clients than `min_clients`.

        Raises:
            TooFew: saying why one of them failed.
        """
        seen = list(reports)
        failed = [report for report in seen if report.error is not None]
        left = len(seen) - len(failed)
        if left >= self._fewest or not failed:
            return
        diverged = all(report.diverged for report in failed)
        why = f"client {failed[0].client}: {failed[0].error}"
        if not left:
            raise TooFew(f"every client failed in round {self._round}; {why}", diverged=diverged)
        raise TooFew(
            f"{left} of {len(seen)} clients are left in round {self._round}, below min_clients={self._fewest}; {why}",
            diverged=diverged,
        )

    def end(self) -> None:
        """Hold a round that the strategy has ended to what it must have done.

        Raises:
            RunFailed: if clients' reports were left lying, or nobody has trained.
        """
        if self._open:
            raise RunFailed(
                "the strategy has not taken all reports of fed.train, which come one by one: use them up, as "
                "fed.average does"
            )
        if not self.reports:
            raise RunFailed(f"the strategy has trained nobody in round {self._round}")
