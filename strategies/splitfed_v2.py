"""SplitFed V2 (Thapa et al., AAAI 2022, Section 3): one server-side model that all clients step in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from flsplit.errors import UserError
from flsplit.server.federation import Federation
from flsplit.server.strategy import Strategy


class SplitFedV2(Strategy):
    """The server-side model sees the clients one after another; only client-side models are averaged.

    With `compressor.scope=cohort` the batches of a turn are compressed as one. A cluster that spans clients can be
    trained on once only, so the server-side model then takes one step on all of them: what `parallel` does with
    `sync=round`, but for the order of the clients. It needs `turn=step` and `order=random`.

    Args:
        turn: `round`: a client's whole local pass, then the next client (as in the authors' code); `step`: a
            batch of each client in turn.
        order: `random`: a seeded random order, drawn each round; `arrival`: as their batches come, which is
            the one order that may differ between two runs.
        options: see `Strategy`.
    """

    placements: ClassVar[tuple[str, ...]] = ("central",)

    def __init__(self, *, turn: str = "round", order: str = "random", **options: Any) -> None:
        super().__init__(**options)
        _check("turn", turn, ("round", "step"))
        _check("order", order, ("random", "arrival"))
        self.turn, self.order = turn, order
        self.repeatable = order != "arrival"
        self.meets = turn == "step" and self.repeatable

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """See `Strategy`."""
        with fed.shared_server_model():
            if self.order == "arrival":
                fed.client_model, _ = fed.average(fed.train(clients))
            else:
                turns = "whole" if self.turn == "round" else "joint" if fed.cohort else "step"
                fed.client_model, _ = fed.average(fed.train_cohort(fed.shuffled(clients), turns=turns))


def _check(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"strategy.{key} must be {' or '.join(choices)}, got {value!r}")
