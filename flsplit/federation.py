"""What a strategy acts on: the current models, the clients, and the ways to run and average them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from flsplit.aggregation import Aggregator, RunningMean
from flsplit.errors import RunFailed
from flsplit.hub import Hub
from flsplit.ledger import FLOAT_BITS, Tally
from flsplit.messenger import Messenger
from flsplit.split.side import SideState
from flsplit.streams import numpy_stream
from flsplit.worker import Report, Task


class Federation:
    """The state of a run between two rounds, and the verbs that a strategy's round is written in.

    Attributes:
        round: the round at hand, from 1.
        client_model: the client-side model that clients start the round with.
        server_model: the server-side model, with its optimizer moments.
        moments: file with the client-side optimizer moments of every client that has any.
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
        moments_folder: Path,
    ) -> None:
        self._messenger, self._hub = messenger, hub
        self._placement, self._aggregator = placement, aggregator
        self._persist, self._seed, self._moments_folder = persist, seed, moments_folder
        self.round = 0
        self.client_model, self.server_model = models
        self.moments: dict[int, str] = {}
        self.reports: list[Report] = []
        self.sync_bits: dict[int, int] = {}
        self._limits: Mapping[int, int] | None = None

    def begin(self, round: int, limits: Mapping[int, int] | None) -> None:
        """Start a round, in which each client sends no more bits than `limits` says (but for its last step)."""
        self.round, self._limits = round, limits
        self.reports, self.sync_bits = [], {}
        self._hub.new_round()
        if not self._persist:
            self.moments = {}
            self.server_model = SideState(self.server_model.weights)

    def train(self, clients: Sequence[int]) -> Iterator[Report]:
        """Run `clients` side by side, each with `client_model` and, unless it is shared, a replica of `server_model`.

        Yields:
            their reports, in the order of `clients`, as they come.
        """
        yield from self._run([(client,) for client in clients], lockstep=False)

    def train_cohort(self, clients: Sequence[int], *, lockstep: bool) -> Iterator[Report]:
        """Run `clients` in one place and in this order.

        Args:
            clients: who.
            lockstep: a batch of each in turn, rather than one to its end, then the next.

        Yields:
            their reports, in ascending order of clients.
        """
        reports = list(self._run([tuple(clients)], lockstep=lockstep))
        yield from sorted(reports, key=lambda report: report.client)

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
            the new client-side and server-side model (the latter unchanged where clients bring none).

        Raises:
            RunFailed: if every client failed.
        """
        models, moments = RunningMean(), RunningMean()
        weight, replicas, reason = 0, False, None
        for report in reports:
            if report.client_model is None:
                reason = reason or f"client {report.client}: {report.error}"
                continue
            vectors = [self._take(report.client_model).weights]
            if report.server_model is not None:
                replica = self._take(report.server_model)
                vectors.append(replica.weights)
                replicas = True
                if replica.moments is not None:
                    moments.add(replica.moments, report.tally.samples)
            models.add(torch.cat(vectors), report.tally.samples)
            weight += report.tally.samples
        mean = models.value()
        if mean is None:
            raise RunFailed(f"every client failed in round {self.round}; {reason}")
        new = self._aggregator.aggregate(self.round, mean, weight)
        size = self.client_model.weights.numel()
        client_model = SideState(new[:size].clone())
        if not replicas:
            return client_model, self.server_model
        return client_model, SideState(new[size:].clone(), moments.value())

    def _take(self, key: str) -> SideState:
        state = self._hub.get(key)
        self._hub.drop(key)
        return state

    def _run(self, cohorts: Sequence[tuple[int, ...]], *, lockstep: bool) -> Iterator[Report]:
        client_key, server_key = f"{self.round}/client", f"{self.round}/server"
        self._hub.put(client_key, SideState(self.client_model.weights))
        replica = self._placement == "replica" and not self._shared
        if replica:
            self._hub.put(server_key, self.server_model)
        elif not self._shared:
            self._hub.host_link().begin(self.server_model, shared=False)
        folder = self._moments_folder
        tasks = [
            Task(
                round=self.round,
                clients=cohort,
                lockstep=lockstep,
                client_model=client_key,
                server_model=server_key if replica else None,
                moments={c: self.moments[c] for c in cohort if c in self.moments},
                moments_out=str(folder / f"{{client}}.{self.round}.npy") if self._persist else None,
                keep_moments=self._persist,
                limits=None if self._limits is None else {c: self._limits[c] for c in cohort},
            )
            for cohort in cohorts
        ]
        model_bits = FLOAT_BITS * self.client_model.weights.numel()
        for task, outcome in zip(tasks, self._messenger.run(tasks)):
            reports = outcome if isinstance(outcome, list) else _failed(task, outcome)
            for report in reports:
                moved = model_bits * (1 if report.client_model is None else 2)  # handed out, handed in
                self.sync_bits[report.client] = self.sync_bits.get(report.client, 0) + moved
                if report.moments is not None:
                    self.moments[report.client] = report.moments
                self.reports.append(report)
                yield report


def _failed(task: Task, reason: str) -> list[Report]:
    return [Report(client=client, tally=Tally(), error=reason) for client in task.clients]
