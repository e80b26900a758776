"""A limit to what is sent: the paper's Gamma (Section 5.1), divided among the clients."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from flsplit.ledger.moves import ModelSize, Moves
from flsplit.ledger.prices import Tally

CHARGES = ("actual", "nominal")
SHARES = ("equal", "samples", "pool")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """Group `budget`."""

    base_epochs: float | None
    charge: str
    count_models: bool
    share: str
    seconds: float | None = None
    joules: float | None = None
    allocation: str = "equal"


class Budget:
    """What every client may send until the run is over, in bits.

    Gamma is the price of `base_epochs` passes over all training samples without compression. A client trains as long as
    it has sent less than its share, so that it stops within one step of it. With `pool` no client has a share: all draw
    on Gamma, and the round that would use it up is cut short, for all who take part in the same proportion. So they all
    train to the end, whatever they have sent. Where models count, a round begins only if the pool pays for those of as
    many clients as take part in one; up to as much may be left over.

    Args:
        config: of the group `budget`, with `base_epochs`.
        base_bits: what one sample costs without compression, both ways; up alone where clients need no gradients.
        samples: training samples of every client.
        moves: models that move between a client and the server.
        model_size: of one of them.
    """

    def __init__(
        self, config: BudgetConfig, *, base_bits: int, samples: Sequence[int], moves: Moves, model_size: ModelSize
    ) -> None:
        assert config.base_epochs is not None
        self._nominal, self._count_models = config.charge == "nominal", config.count_models
        moved = partial(moves.bits, model_size)
        self._first = moved(first=True, steps=0) if config.count_models else 0  # models of a client's first round
        self._later = moved(first=False, steps=0) if config.count_models else 0
        self._per_step = moved(first=False, steps=1) - moved(first=False, steps=0)
        self.gamma = math.ceil(config.base_epochs * sum(samples) * base_bits)
        self._clients, self._samples = range(len(samples)), samples
        self._base_bits, self._share = base_bits, config.share
        self._shares: list[int] | None = None  # one pool
        if config.share == "equal":
            self._shares = [self.gamma // len(samples)] * len(samples)
        elif config.share == "samples":
            self._shares = [self.gamma * n // sum(samples) for n in samples]

    def least(self, taking_part: int) -> float:
        """Base epochs above which a first round of so many clients can send something, its models counted."""
        every, samples = len(self._clients), self._samples
        shares = {"equal": every, "samples": sum(samples) / max(1, *samples), "pool": taking_part}
        return self._first * shares[self._share] / (sum(samples) * self._base_bits)

    def cost(self, tally: Tally, sync_bits: int) -> int:
        """What a client is charged for what it has sent and received."""
        sent = tally.nominal_bits if self._nominal else tally.uplink_bits + tally.downlink_bits
        return sent + (sync_bits if self._count_models else 0)

    def able(self, spent: Mapping[int, int], acquainted: Collection[int], taking_part: int) -> list[int]:
        """Clients that could still send activations in a further round.

        Args:
            spent: bits that each client has been charged.
            acquainted: clients that have had their first models.
            taking_part: clients in a round.
        """
        if self._shares is None:
            dearest = sorted(self._clients, key=acquainted.__contains__)[:taking_part]  # whose first models are to come
            return list(self._clients) if self._pool(spent, acquainted, dearest) > 0 else []
        return [client for client in self._clients if self._left(client, spent, acquainted) > 0]

    def limits(
        self, spent: Mapping[int, int], acquainted: Collection[int], steps: Mapping[int, Sequence[Tally]]
    ) -> dict[int, int]:
        """Bits that clients may send of activations and gradients in a round.

        Args:
            spent: bits that each client has been charged.
            acquainted: clients that have had their first models.
            steps: what those who take part would do without a budget.
        """
        if self._shares is not None:
            return {client: self._left(client, spent, acquainted) for client in steps}
        costs = {client: self._training(own) for client, own in steps.items()}
        left, whole = self._pool(spent, acquainted, steps), sum(costs.values())
        if whole <= left:
            return dict.fromkeys(costs, left)
        return {client: math.ceil(left * cost / whole) for client, cost in costs.items()}  # a step at least

    def _left(self, client: int, spent: Mapping[int, int], acquainted: Collection[int]) -> int:
        assert self._shares is not None
        return self._shares[client] - spent.get(client, 0) - self._models(client, acquainted)

    def _pool(self, spent: Mapping[int, int], acquainted: Collection[int], clients: Iterable[int]) -> int:
        return self.gamma - sum(spent.values()) - sum(self._models(client, acquainted) for client in clients)

    def _models(self, client: int, acquainted: Collection[int]) -> int:
        return self._later if client in acquainted else self._first

    def _training(self, steps: Sequence[Tally]) -> int:
        return sum(self.cost(step, self._per_step) for step in steps)

    def spent(self, tally: Tally) -> int:
        """What a client is charged for the steps of a round so far."""
        return self.cost(tally, self._per_step * tally.steps)

    def affordable(self, steps: Sequence[Tally], limit: int) -> int:
        """How many of `steps` are taken: all that begin below `limit`."""
        before = accumulate((self.cost(step, self._per_step) for step in steps), initial=0)
        return sum(spent < limit for spent, _ in zip(before, steps))

    def rounds(self, steps: Sequence[Sequence[Tally]], taking_part: int) -> int:
        """About how many rounds it lasts.

        Args:
            steps: of a round, for every client.
            taking_part: clients in a round.
        """
        costs = [self._training(own) + self._later for own in steps]
        once = self._first - self._later
        if self._shares is None:
            left = self.gamma - once * len(costs)
            return max(1, math.ceil(left * len(costs) / max(1, sum(costs) * taking_part)))
        each = [math.ceil((share - once) / max(1, cost)) for share, cost in zip(self._shares, costs)]
        return max(1, *each, math.ceil(sum(each) / taking_part))
