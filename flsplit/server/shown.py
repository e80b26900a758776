"""What the display tells while clients work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from flsplit.assembly import Costs
from flsplit.display.console import Progress
from flsplit.ledger.prices import Tally
from flsplit.server.account import Account
from flsplit.transport.hub import ServerHub

SHOW_EVERY = 0.25  # seconds


class Shown:
    """Brings the display up to date from what clients say of their steps.

    Args:
        progress: the live display.
        hub: that clients report to.
        costs: of the run.
        account: of what clients may send.
        so_far: what was sent before the round.
        done: clients whose part in the round is over.
    """

    def __init__(
        self, progress: Progress, hub: ServerHub, costs: Costs, account: Account, *,
        so_far: Callable[[], Tally], done: Callable[[], int],
    ) -> None:  # fmt: skip
        self._progress, self._hub, self._costs, self._account = progress, hub, costs, account
        self._so_far, self._done = so_far, done
        self._at, self._round, self._steps, self._clients = 0.0, 0, 0, 0

    def begin(self, number: int, clients: Sequence[int]) -> None:
        """Work out how many steps round `number` will take."""
        limits = self._account.limits(clients) or {}
        self._round, self._clients = number, len(clients)
        self._steps = sum(len(self._costs.steps(client, limits.get(client))) for client in clients)

    def refresh(self) -> None:
        """Show where the round stands, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._at < SHOW_EVERY:
            return
        self._at = now
        reports = self._hub.progress()
        if not reports:
            return
        losses = [(loss, tally.steps) for tally, loss in reports.values() if np.isfinite(loss)]
        weight = sum(steps for _, steps in losses)
        sent = self._so_far()
        self._progress.step(
            round=self._round, step=sum(tally.steps for tally, _ in reports.values()), steps=self._steps,
            clients_done=self._done(), clients=self._clients,
            loss=sum(loss * steps for loss, steps in losses) / weight if weight else float("nan"),
            uplink_bits=sent.uplink_bits + sum(tally.uplink_bits for tally, _ in reports.values()),
            downlink_bits=sent.downlink_bits + sum(tally.downlink_bits for tally, _ in reports.values()),
        )  # fmt: skip
