"""A limit to what is sent: the paper's Gamma (Section 5.1), divided among the clients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from flsplit.ledger import Moves, Tally

CHARGES = ("actual", "nominal")
SHARES = ("equal", "samples")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """Group `budget`."""

    base_epochs: float | None
    charge: str
    count_models: bool
    share: str


class Budget:
    """What every client may send until the run is over, in bits.

    Gamma is the price of `base_epochs` passes over all training samples without compression, both ways. A client
    trains as long as it has sent less than its share, so that it stops within one step of it.

    Args:
        config: of the group `budget`, with `base_epochs`.
        base_bits: what one sample costs without compression, both ways.
        samples: training samples of every client.
        moves: models that move between a client and the server.
        model_floats: floats in one of them.
    """

    def __init__(
        self, config: BudgetConfig, *, base_bits: int, samples: Sequence[int], moves: Moves, model_floats: int
    ) -> None:
        assert config.base_epochs is not None
        self._nominal, self._count_models = config.charge == "nominal", config.count_models
        self._exchange = moves.bits(model_floats, first=True, steps=0) if config.count_models else 0
        self._per_step = moves.bits(model_floats, first=False, steps=1) - moves.bits(model_floats, first=False, steps=0)
        self.gamma = math.ceil(config.base_epochs * sum(samples) * base_bits)
        if config.share == "equal":
            self.shares = [self.gamma // len(samples)] * len(samples)
        else:
            self.shares = [self.gamma * n // sum(samples) for n in samples]

    def cost(self, tally: Tally, sync_bits: int) -> int:
        """What a client is charged for what it has sent and received."""
        sent = tally.nominal_bits if self._nominal else tally.uplink_bits + tally.downlink_bits
        return sent + (sync_bits if self._count_models else 0)

    def left(self, spent: Mapping[int, int]) -> dict[int, int]:
        """Bits that remain for activations and gradients in a further round, for the clients that have any."""
        left = {c: share - spent.get(c, 0) - self._exchange for c, share in enumerate(self.shares)}
        return {client: bits for client, bits in left.items() if bits > 0}

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
        costs = [sum(self.cost(step, self._per_step) for step in own) + self._exchange for own in steps]
        each = [math.ceil(share / max(1, cost)) for share, cost in zip(self.shares, costs)]
        return max(1, *each, math.ceil(sum(each) / taking_part))
