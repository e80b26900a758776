"""What a strategy acts on: the current models, the clients, and the ways to run and average them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path
from types import MappingProxyType

import torch

from flsplit.errors import RunFailed
from flsplit.ledger.prices import Tally
from flsplit.server.aggregation import Aggregator, RunningMean
from flsplit.server.arrivals import Arrivals, Models
from flsplit.server.bill import Bill
from flsplit.server.checkpoint import ClientFiles, with_own
from flsplit.server.messenger import Messenger
from flsplit.server.outliers import NormBound
from flsplit.server.roll import Roll, TooFew
from flsplit.server.timekeeper import Timekeeper
from flsplit.split.side import SideState
from flsplit.streams import numpy_stream
from flsplit.transport.hub import ServerHub
from flsplit.transport.task import Kept, Report, Task

_LARGE = frozenset({"moments", "weights"})  # what clients keep whose files are worth writing over


class Federation:
    """The state of a run between two rounds, and the verbs that a strategy's round is written in.

    Attributes:
        round: the round at hand, from 1.
        attempt: at the round, from 0.
        client_model: the client-side model that clients start the round with.
        server_model: the server-side model, with its optimizer moments.
        trained: how many numbers of the client-side and of the server-side model are trained; they come first.
        cohort: whether the clients of a step are compressed as one (`compressor.scope=cohort`), and so step jointly.
        now: simulated seconds since the run began; None without a network, unless the strategy keeps time itself.
        kept: files with what clients have kept for themselves, by client and field of its `SideState`.
        bill: what the round has cost so far.
    """

    def __init__(
        self,
        messenger: Messenger,
        hub: ServerHub,
        *,
        models: tuple[SideState, SideState],
        placement: str,
        aggregator: Aggregator,
        persist: bool,
        seed: int,
        files: ClientFiles,
        stack: int,
        trained: tuple[int, int],
        personal_buffers: bool,
        bound: NormBound,
        fewest: int,
        bill: Bill,
        cohort: bool = False,
        timekeeper: Timekeeper | None = None,
        keeps_time: bool = False,
    ) -> None:
        self._messenger, self._hub = messenger, hub
        self._placement, self._aggregator = placement, aggregator
        self._persist, self._seed, self._files = persist, seed, files
        self._stack, self.trained, self._personal_buffers = stack, trained, personal_buffers
        self._roll, self.bill = Roll(bill.account.clients, fewest), bill
        self._arrived = Arrivals(hub, bound, trained)
        self._timekeeper, self._keeps_time = timekeeper, keeps_time
        self.cohort = cohort
        self.round, self.attempt = 0, 0
        self.client_model, self.server_model = models
        self.now: float | None = None
        self._began = 0.0  # when the round did
        self.kept: dict[int, Kept] = {}
        self._runs = 0  # in this round; names models, so that no name stands for two
        self._shared = False  # whether all clients step one server-side model

    def begin(self, round: int, *, attempt: int = 0) -> None:
        """Start an attempt at a round; what earlier ones have cost stays counted."""
        self.round, self.attempt = round, attempt
        self._began = self.now or 0.0
        if not attempt:
            self.bill.begin()
        self._roll.begin(round)
        self._arrived.clear()
        self._hub.new_round()
        self._runs = 0
        if not self._persist:
            self.kept = {
                client: {field: file for field, file in kept.items() if field != "moments"}
                for client, kept in self.kept.items()
            }
            self.client_model = replace(self.client_model, moments=None)
            self.server_model = replace(self.server_model, moments=None)

    @property
    def reports(self) -> list[Report]:
        """Of the clients run so far in this round."""
        return self._roll.reports

    def finish(self) -> None:
        """Hold a strategy's round to what it must have done.

        Raises:
            RunFailed: if clients' reports were left lying, nobody has trained, or the clock has gone backward.
        """
        self._roll.end()
        if self.now is not None and not self._began <= self.now < inf:
            raise RunFailed(
                f"the strategy leaves fed.now at {self.now:g} s in round {self.round}, which began at "
                f"{self._began:g} s; simulated time is finite and does not go backward"
            )

    def train(
        self, clients: Sequence[int], *, personal: bool = False, starts: Mapping[int, Models] | None = None,
        begun: Mapping[int, int] | None = None, since: Mapping[int, float] | None = None,
    ) -> Iterator[Report]:  # fmt: skip
        """Run `clients` side by side, each with a client-side model and, unless it is shared, a server-side replica.

        Args:
            clients: who.
            personal: whether each goes on with its own client-side model and keeps it, rather than starting from
                `client_model`.
            starts: client-side and server-side model of clients that start from others than `client_model` and
                `server_model`, such as those of an earlier round; not with `engine.stack`, nor with a central host.
            begun: the rounds in which clients have begun, where that was earlier.
            since: when each has begun, in simulated seconds, where the strategy keeps time.

        Returns:
            their reports, in the order of `clients`, as they come; all of them must be taken.
        """
        self._roll.call(clients)
        stacks = [tuple(clients[at : at + self._stack]) for at in range(0, len(clients), self._stack)]
        keep = ("moments", "own", *(("weights",) if personal else ()))
        turns = "whole" if self._stack == 1 else "stacked"
        limits = self.bill.account.limits(clients)
        most, late = None, dict[int, int]()
        if self._timekeeper is not None:
            most, late = self._timekeeper.by_the_deadline(
                clients, self.round, self.attempt, known=self.bill.account.acquainted, limits=limits
            )
        run = self._run(stacks, limits, turns=turns, keep=keep, starts=starts or {}, most=most, late=late)
        schedule = "step" if self._shared else "side by side"  # one server-side model takes their batches in turn
        return self._roll.taken(self._timed(schedule, run, limits, late=late, begun=begun, since=since))

    def train_cohort(self, clients: Sequence[int], *, turns: str = "whole", relay: bool = False) -> list[Report]:
        """Run `clients` in one place and in this order.

        Args:
            clients: who.
            turns: `whole`: one to its end, then the next; `step`: a batch of each in turn; `joint`: a batch of all at
                a time, with one server-side update on their concatenated activations.
            relay: whether each starts with the client-side model of the one before it.

        Returns:
            their reports, in ascending order of clients.
        """
        self._roll.call(clients)
        limits = self.bill.account.limits(clients)
        run = self._run([tuple(clients)], limits, turns=turns, relay=relay, keep=("moments", "own"))
        reports = self._timed(turns, run, limits)
        return sorted(reports, key=lambda report: report.client)

    def train_as_one(self, clients: Sequence[int]) -> list[Report]:
        """Run `clients` jointly, and step one client-side model for all with the sum of their gradients.

        Returns:
            their reports, in ascending order of clients; the model is `handed_in`.
        """
        self._roll.call(clients)
        limits = self.bill.account.limits(clients)
        reports = self._timed("joint", self._run([tuple(clients)], limits, turns="gradient"), limits)
        return sorted(reports, key=lambda report: report.client)

    def seconds(self, client: int) -> float:
        """Simulated seconds of a whole round of `client` that begins now and waits for nobody.

        Raises:
            RunFailed: if there is no network that says how long things take.
        """
        if self._timekeeper is None:
            raise RunFailed("this strategy needs simulated time: network must be another than none, such as lte")
        limits = self.bill.account.limits([client])
        limit = None if limits is None else limits[client]
        return self._timekeeper.seconds(
            client, self.round, first=client not in self.bill.account.acquainted, limit=limit
        )

    def handed_in(self, reports: Iterable[Report], clients: Sequence[int]) -> SideState:
        """The client-side model of the last of `clients` that did not fail.

        Raises:
            RunFailed: if too few clients are left.
        """
        by_client = {report.client: report for report in reports}
        self._roll.enough(by_client.values())
        for client in reversed(clients):
            model = self._arrived.client_model(by_client[client])
            if model is not None:
                return model
        raise TooFew(f"no client has handed in a client-side model in round {self.round}")

    def brought(self, report: Report) -> tuple[SideState | None, SideState | None]:
        """What a client has brought back: its client-side model and its replica of the server-side model, once.

        Either is None where it stays elsewhere, both where the client failed.
        """
        return self._arrived.take(report)

    def models_of(self, client: int) -> Models:
        """Client-side and server-side model as `client` would use them now."""
        return with_own(self.client_model, self.kept.get(client, {})), self.server_model

    def has_own_model(self, client: int) -> bool:
        """Whether a client would use another client-side model than the others."""
        kept = self.kept.get(client, {})
        return "weights" in kept or (self._personal_buffers and "own" in kept)

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

    def shuffled(self, clients: Sequence[int]) -> list[int]:
        """`clients` in this round's random order."""
        return [int(c) for c in numpy_stream(self._seed, "turns", self.round).permutation(list(clients))]

    def average(self, reports: Iterable[Report]) -> tuple[SideState, SideState]:
        """Average what the clients bring back, each weighted by the samples it has processed.

        The aggregator sees a client's model and its replica of the server-side model as one vector; the replicas'
        optimizer moments are such a mean, and so are buffers, whatever step an aggregator takes along it: they are
        statistics, not weights. Clients that failed are left out.

        Returns:
            the new client-side and server-side model; unchanged where clients bring none.

        Raises:
            RunFailed: if too few clients are left.
        """
        collected, moments = self._aggregator.collect(), RunningMean()
        client_models, replicas, seen = False, False, []
        for report in reports:
            seen.append(report)
            if report.error is not None:
                continue
            client, replica = self.brought(report)
            client_models, replicas = client_models or client is not None, replicas or replica is not None
            parts = [state.weights for state in (client, replica) if state is not None]
            if replica is not None and replica.moments is not None:
                moments.add([replica.moments], report.tally.samples)
            collected.add(parts, report.tally.samples)
        self._roll.enough(seen)
        if collected.empty:
            raise TooFew(f"no client has trained on anything in round {self.round}")
        start = [self.client_model.weights] * client_models + [self.server_model.weights] * replicas
        size = self.client_model.weights.numel() if client_models else 0
        buffers = [slice(self.trained[0], size)] * client_models
        buffers += [slice(size + self.trained[1], size + self.server_model.weights.numel())] * replicas
        new = self._aggregator.aggregate(self.round, torch.cat(start), collected, plain=buffers)
        client_model = SideState(new[:size]) if client_models else self.client_model
        server_model = SideState(new[size:], moments.value()) if replicas else self.server_model
        return client_model, server_model

    def _run(
        self,
        cohorts: Sequence[tuple[int, ...]],
        limits: Mapping[int, int] | None,
        *,
        turns: str,
        relay: bool = False,
        keep: tuple[str, ...] = (),
        starts: Mapping[int, Models] = MappingProxyType({}),
        most: Mapping[int, int] | None = None,
        late: Mapping[int, int] = MappingProxyType({}),
    ) -> Iterator[Report]:
        replica = self._placement == "replica" and not self._shared
        assert not starts or (replica and self._stack == 1), "only clients with a replica each start from other models"
        usual = self._leave((self.client_model, self.server_model), replica)
        if not replica and not self._shared:
            self._hub.host_link().begin(self.server_model, shared=False)
        if not self._persist:
            keep = tuple(field for field in keep if field != "moments")
        place = str(self._files.folder / f"{{client}}.{self.round}.{{field}}.npy")
        tasks = []
        for cohort in cohorts:
            client_key, server_key = self._leave(starts[cohort[0]], replica) if cohort[0] in starts else usual
            task = Task(
                round=self.round, attempt=self.attempt, clients=cohort, turns=turns, relay=relay,
                client_model=client_key, server_model=server_key, keep=keep, place=place, keep_moments=self._persist,
                kept={c: self._start_of(c, keep) for c in cohort if c in self.kept},
                limits=None if limits is None else {c: limits[c] for c in cohort},
                most=None if most is None else {c: most[c] for c in cohort},
            )  # fmt: skip
            tasks.append(task)
            for client, field in product(cohort, _LARGE.intersection(keep)):
                self._files.make_room(Path(task.file(client, field)))
        for task, outcome in zip(tasks, self._messenger.run(tasks)):
            reports = outcome if isinstance(outcome, list) else _failed(task, outcome)
            for report in reports:
                if report.fatal:
                    raise RunFailed(str(report.error))
                start = starts.get(report.client, (self.client_model, self.server_model))
                report = self._arrived.fetch(report, start)
                if report.client in late:
                    report = replace(self._late(report), came_down=late[report.client])
                self.bill.add(report, self.attempt)
                if report.kept:
                    self.kept[report.client] = self.kept.get(report.client, {}) | report.kept
                self.reports.append(report)
                yield report

    def _late(self, report: Report) -> Report:
        """That of a failure, which it is already if something else came before."""
        assert self._timekeeper is not None
        if report.error is not None:
            return report
        why = f"it would have been later than network.round_deadline_s={self._timekeeper.deadline:g}"
        return self._arrived.refuse(report, why)

    def _timed(
        self, schedule: str, run: Iterator[Report], limits: Mapping[int, int] | None, *, late: Collection[int] = (),
        begun: Mapping[int, int] | None = None, since: Mapping[int, float] | None = None,
    ) -> Iterator[Report]:  # fmt: skip
        """Hand on reports as they come, and set the clock when all are there."""
        if self._timekeeper is None:
            yield from run
            return
        known, reports = set(self.bill.account.acquainted), []
        for report in run:
            reports.append(report)
            yield report
        whole, spent = self._timekeeper.of(
            schedule, reports, self.round, self.attempt, new={r.client for r in reports} - known, limits=limits,
            late=late, begun=begun,
            lasted=None if since is None else {client: (self.now or 0.0) - start for client, start in since.items()},
        )  # fmt: skip
        for client, own in spent.items():
            self.bill.add_time(client, own)
        if not self._keeps_time:
            self.now = (self.now or 0.0) + whole

    def _leave(self, models: Models, replica: bool) -> tuple[str, str | None]:
        """Leave models at the hub; their keys."""
        self._runs += 1
        client_key, server_key = (f"{self.round}.{self._runs}/{side}" for side in ("client", "server"))
        self._hub.put({client_key: models[0], **({server_key: models[1]} if replica else {})})
        return client_key, server_key if replica else None

    def _start_of(self, client: int, keep: tuple[str, ...]) -> Kept:
        """What a client goes on with of what it has kept: its weights only where it keeps them again."""
        return {field: file for field, file in self.kept[client].items() if field in keep}


def _failed(task: Task, reason: str) -> list[Report]:
    return [Report(client=client, tally=Tally(), error=reason) for client in task.clients]
