"""Models that clients have brought back, until a strategy takes them."""

from __future__ import annotations

from dataclasses import replace

from flsplit.errors import RunFailed
from flsplit.server.outliers import NormBound
from flsplit.split.side import SideState
from flsplit.transport.hub import ModelLost, ServerHub
from flsplit.transport.task import Report

Models = tuple[SideState, SideState]  # client-side and server-side


class Arrivals:
    """Those of an attempt at a round.

    Args:
        hub: where clients leave them.
        bound: on what a client may change.
        trained: how many numbers of a client-side and of a server-side model are trained; they come first.
    """

    def __init__(self, hub: ServerHub, bound: NormBound, trained: tuple[int, int]) -> None:
        self._hub, self._bound, self._trained = hub, bound, trained
        self._models: dict[str, SideState] = {}

    def clear(self) -> None:
        """Forget what nobody has taken."""
        self._models = {}

    def fetch(self, report: Report, start: Models) -> Report:
        """Get what a client has left at the hub.

        Args:
            report: of the client.
            start: the models that it started from.

        Returns:
            its report: of a failure if its models are gone, or changed by more than they may.
        """
        keys = [key for key in _keys(report) if key is not None and key not in self._models]
        try:
            if keys:
                self._models |= self._hub.take(keys)
        except ModelLost as error:
            return self.refuse(report, str(error))
        return report if self._bound.max_update_norm is None else self._held(report, start)

    def refuse(self, report: Report, why: str, *, brought: bool = False) -> Report:
        """Leave out what a client has learnt; what it has sent counts.

        Args:
            report: of the client.
            why: in one line.
            brought: whether its models have come up, and are what is refused.

        Returns:
            the report of its failure.
        """
        for key in _keys(report):
            self._models.pop(key or "", None)
        return Report(client=report.client, tally=report.tally, sent=report.sent, error=why, refused=brought)

    def client_model(self, report: Report) -> SideState | None:
        """The client-side model that a client has brought; None where it has not."""
        return None if report.client_model is None else self._models[report.client_model]

    def take(self, report: Report) -> tuple[SideState | None, SideState | None]:
        """Client-side model and replica of the server-side model that a client has brought; None where it has not.

        Raises:
            RunFailed: if they have been taken before.
        """
        keys = _keys(report)
        if any(key is not None and key not in self._models for key in keys):
            raise RunFailed(f"the strategy takes the models of client {report.client} twice; they are handed out once")
        client, server = (None if key is None else self._models.pop(key) for key in keys)
        return client, server

    def _held(self, report: Report, start: Models) -> Report:
        """Hold what a client has brought to the bound."""
        bound = self._bound
        sides = zip(_keys(report), start, self._trained)
        there = [(key, old.weights, trained) for key, old, trained in sides if key is not None]
        if not there:
            return report
        keys, old, trained = zip(*there)
        norm, held = bound.hold([self._models[key].weights for key in keys], old, trained)
        if norm > (bound.max_update_norm or norm) and bound.on_outlier == "fail":
            most = f"strategy.max_update_norm={bound.max_update_norm:g}"
            return self.refuse(report, f"its update has a norm of {norm:.3g}, above {most}", brought=True)
        for key, weights in zip(keys, held):
            self._models[key] = replace(self._models[key], weights=weights)
        return report


def _keys(report: Report) -> tuple[str | None, str | None]:
    return report.client_model, report.server_model
