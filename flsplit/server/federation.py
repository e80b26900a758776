"""What a strategy acts on: the current models, the clients, and the ways to run and average them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch

from flsplit.errors import RunFailed
from flsplit.ledger.prices import Moves, Tally
from flsplit.server.aggregation import Aggregator, RunningMean
from flsplit.server.checkpoint import ClientFiles
from flsplit.server.messenger import Messenger
from flsplit.split.side import SideState
from flsplit.streams import numpy_stream
from flsplit.transport import vectors
from flsplit.transport.hub import Hub, ModelLost
from flsplit.transport.task import Report, Task


class Federation:
    """The state of a run between two rounds, and the verbs that a strategy's round is written in.

    Attributes:
        round: the round at hand, from 1.
        client_model: the client-side model that clients start the round with.
        server_model: the server-side model, with its optimizer moments.
        moments: file with the client-side optimizer moments of every client that has any.
        models: file with the client-side model of every client that keeps its own.
        acquainted: clients that have taken part before.
        reports: of the clients run so far in this round.
        sync_bits: bits of models that moved between a client and the server in this round, by client.
    """

    def __init__(
        self,
        messenger: Messenger,
        hub: Hub,
        *,
        models: tuple[SideState, SideState],
        placement: str,
        aggregator: Aggregator,
        persist: bool,
        seed: int,
        files: ClientFiles,
        moves: Moves,
        model_floats: int,
        stack: int,
    ) -> None:
        self._messenger, self._hub = messenger, hub
        self._placement, self._aggregator = placement, aggregator
        self._persist, self._seed, self._files = persist, seed, files
        self._moves, self._model_floats = moves, model_floats
        self._stack = stack
        self.round = 0
        self.client_model, self.server_model = models
        self.moments: dict[int, str] = {}
        self.models: dict[int, str] = {}
        self.acquainted: set[int] = set()
        self.reports: list[Report] = []
        self.sync_bits: dict[int, int] = {}
        self._limits: Mapping[int, int] | None = None
        self._runs = 0  # in this round; names models, so that no name stands for two
        self._arrived: dict[str, SideState] = {}  # models that clients have brought, by their keys

    def begin(self, round: int, limits: Mapping[int, int] | None) -> None:
        """Start a round, in which each client sends no more bits than `limits` says (but for its last step)."""
        self.round, self._limits = round, limits
        self.reports, self.sync_bits, self._arrived = [], {}, {}
        self._hub.new_round()
        self._runs = 0
        if not self._persist:
            self.moments = {}
            self.client_model = SideState(self.client_model.weights)
            self.server_model = SideState(self.server_model.weights)

    def train(self, clients: Sequence[int], *, personal: bool = False) -> Iterator[Report]:
        """Run `clients` side by side, each with a client-side model and, unless it is shared, a server-side replica.

        Args:
            clients: who.
            personal: whether each goes on with its own client-side model and keeps it, rather than starting from
                `client_model`.

        Yields:
            their reports, in the order of `clients`, as they come.
        """
        stacks = [tuple(clients[at : at + self._stack]) for at in range(0, len(clients), self._stack)]
        yield from self._run(stacks, turns="whole" if self._stack == 1 else "stacked", personal=personal)

    def train_cohort(self, clients: Sequence[int], *, turns: str = "whole", relay: bool = False) -> list[Report]:
        """Run `clients` in one place and in this order.

        Args:
            clients: who.
            turns: see `Task`.
            relay: whether each starts with the client-side model of the one before it.

        Returns:
            their reports, in ascending order of clients.
        """
        reports = list(self._run([tuple(clients)], turns=turns, relay=relay))
        return sorted(reports, key=lambda report: report.client)

    def handed_in(self, reports: Iterable[Report], clients: Sequence[int]) -> SideState:
        """The client-side model of the last of `clients` that did not fail.

        Raises:
            RunFailed: if every client failed.
        """
        by_client = {report.client: report for report in reports}
        keys = [by_client[client].client_model for client in clients]
        for key in reversed(keys):
            if key is not None:
                return self._arrived[key]
        raise self._all_failed(by_client.values())

    def models_of(self, client: int) -> tuple[SideState, SideState]:
        """Client-side and server-side model as `client` would use them now."""
        if client not in self.models:
            return self.client_model, self.server_model
        return SideState(vectors.read(self.models[client])), self.server_model

    @contextmanager
    def shared_server_model(self) -> Iterator[None]:
        """While it lasts, all clients step one and the same server-side model, in the central host."""
        host = self._hub.host_link()
        host.begin(self.server_model, shared=True)
        self._shared = True
        try:
            yield
            self.server_model = host.shared_state(moments=self._persist)
        finally:
            self._shared = False

    _shared = False

    def shuffled(self, clients: Sequence[int]) -> list[int]:
        """`clients` in this round's random order."""
        return [int(c) for c in numpy_stream(self._seed, "turns", self.round).permutation(list(clients))]

    def average(self, reports: Iterable[Report]) -> tuple[SideState, SideState]:
        """Average what the clients bring back, each weighted by the samples it has processed.

        The aggregator sees a client's model and its replica of the server-side model as one vector; the replicas'
        optimizer moments are averaged plainly. Clients that failed are left out.

        Returns:
            the new client-side and server-side model; unchanged where clients bring none.

        Raises:
            RunFailed: if every client failed.
        """
        collected, moments = self._aggregator.collect(), RunningMean()
        client_models, replicas, seen = False, False, []
        for report in reports:
            seen.append(report)
            if report.error is not None:
                continue
            parts = []
            if report.client_model is not None:
                parts.append(self._arrived.pop(report.client_model).weights)
                client_models = True
            if report.server_model is not None:
                replica = self._arrived.pop(report.server_model)
                parts.append(replica.weights)
                replicas = True
                if replica.moments is not None:
                    moments.add([replica.moments], report.tally.samples)
            collected.add(parts, report.tally.samples)
        if collected.empty:
            raise self._all_failed(seen)
        start = [self.client_model.weights] * client_models + [self.server_model.weights] * replicas
        new = self._aggregator.aggregate(self.round, torch.cat(start), collected)
        size = self.client_model.weights.numel() if client_models else 0
        client_model = SideState(new[:size]) if client_models else self.client_model
        server_model = SideState(new[size:], moments.value()) if replicas else self.server_model
        return client_model, server_model

    def _all_failed(self, reports: Iterable[Report]) -> RunFailed:
        first = next(iter(reports))
        return RunFailed(f"every client failed in round {self.round}; client {first.client}: {first.error}")

    def _fetch(self, report: Report) -> Report:
        """Get the models that a client has left at the hub; it has failed if they are gone."""
        try:
            keys = [k for k in (report.client_model, report.server_model) if k is not None and k not in self._arrived]
            if keys:
                self._arrived |= self._hub.take(keys)
        except ModelLost as error:
            return Report(client=report.client, tally=report.tally, error=str(error))
        return report

    def _run(
        self, cohorts: Sequence[tuple[int, ...]], *, turns: str = "whole", relay: bool = False, personal: bool = False
    ) -> Iterator[Report]:
        self._runs += 1
        client_key, server_key = (f"{self.round}.{self._runs}/{side}" for side in ("client", "server"))
        replica = self._placement == "replica" and not self._shared
        self._hub.put({client_key: self.client_model, **({server_key: self.server_model} if replica else {})})
        if not replica and not self._shared:
            self._hub.host_link().begin(self.server_model, shared=False)
        place = str(self._files.folder / f"{{client}}.{self.round}")
        moments_out = f"{place}.npy" if self._persist and turns != "gradient" else None
        models_out = f"{place}.model.npy" if personal else None
        for path in filter(None, (moments_out, models_out)):
            for client in chain.from_iterable(cohorts):
                self._files.make_room(Path(path.format(client=client)))
        tasks = [
            Task(
                round=self.round,
                clients=cohort,
                turns=turns,
                relay=relay,
                client_model=client_key,
                server_model=server_key if replica else None,
                moments={c: self.moments[c] for c in cohort if c in self.moments},
                moments_out=moments_out,
                models={c: self.models[c] for c in cohort if c in self.models} if personal else {},
                models_out=models_out,
                keep_moments=self._persist,
                limits=None if self._limits is None else {c: self._limits[c] for c in cohort},
            )
            for cohort in cohorts
        ]
        for task, outcome in zip(tasks, self._messenger.run(tasks)):
            reports = outcome if isinstance(outcome, list) else _failed(task, outcome)
            for report in map(self._fetch, reports):
                self._count(report)
                if report.moments is not None:
                    self.moments[report.client] = report.moments
                if report.model is not None:
                    self.models[report.client] = report.model
                self.reports.append(report)
                yield report

    def _count(self, report: Report) -> None:
        """Count the models that a client's round has moved."""
        moved = self._moves.bits(
            self._model_floats, first=report.client not in self.acquainted, steps=report.tally.steps,
            succeeded=report.error is None,
        )  # fmt: skip
        self.acquainted.add(report.client)
        self.sync_bits[report.client] = self.sync_bits.get(report.client, 0) + moved


def _failed(task: Task, reason: str) -> list[Report]:
    return [Report(client=client, tally=Tally(), error=reason) for client in task.clients]
