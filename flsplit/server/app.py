"""The server of an experiment: its rounds, one after another."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flwr.serverapp import Grid

from flsplit.assembly import Costs, assembly_for, host_from_json
from flsplit.config.faults import injected
from flsplit.data.clients import held_out_rows
from flsplit.display.console import Progress
from flsplit.errors import RunFailed
from flsplit.ledger.prices import Tally
from flsplit.network import Spent
from flsplit.record.tables import Recorder, Row, test_column
from flsplit.server import sampling
from flsplit.server.account import Account
from flsplit.server.attempts import Attempts
from flsplit.server.bill import Bill
from flsplit.server.checkpoint import Checkpoints, State
from flsplit.server.evaluation import Evaluator, Score, mean
from flsplit.server.federation import Federation
from flsplit.server.messenger import Messenger
from flsplit.server.saving import Saving
from flsplit.server.shown import Shown
from flsplit.server.strategy import build
from flsplit.server.timekeeper import Timekeeper
from flsplit.split.side import SideState
from flsplit.streams import numpy_stream
from flsplit.transport.hub import ServerHub
from flsplit.transport.task import Report


@dataclass
class Totals:
    """What has been counted since the first round; kept in checkpoints."""

    tally: Tally
    sync_bits: int = 0
    seconds: float = 0.0  # of rounds, evaluation included, start-up apart
    joules: float = 0.0  # of all clients, simulated
    training_seconds: float = 0.0  # of rounds, start-up and evaluation apart
    acquainted: list[int] = field(default_factory=list)  # clients that have had their first models


class Server:
    """Runs the rounds of one experiment over a grid.

    Args:
        plan: of the experiment, as JSON.
        recorder: of the run's tables.
        checkpoints: of the run.
        progress: the live display.
        workers: client processes to warm up.
        origin: what the numbers depend on, for checkpoints.
        notes: what is to be known about how the run came here.

    Attributes:
        totals: what has been counted so far.
        out_of_budget: whether every client has spent its share of the budget.
        own: what every client ends with on its held-out part (`partition.holdout`), by client.
    """

    def __init__(
        self, plan: str, recorder: Recorder, checkpoints: Checkpoints, progress: Progress, *, workers: int,
        origin: Mapping[str, Any] | None = None, notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._plan, self._recorder, self._checkpoints, self._progress = plan, recorder, checkpoints, progress
        self._origin, self.notes = dict(origin or {}), list(notes)
        self._workers = workers
        self.out_of_budget = False
        self.own: dict[int, Score] = {}
        self.totals = Totals(Tally())

    def run(self, grid: Grid, hub: ServerHub) -> None:
        """All rounds that are still to be run.

        Raises:
            RunFailed: if a round brings no model back; what was finished before is saved.
        """
        self._assembly = assembly = assembly_for(self._plan)
        config, costs = assembly.config, Costs(assembly)
        start = self._start()
        self._shapes = {"client": start.client_model.weights.shape, "server": start.server_model.weights.shape}
        charged = {int(client): bits for client, bits in start.totals.get("charged", {}).items()}
        self._account = account = Account(costs, charged, self.totals.acquainted)
        shown = Shown(
            self._progress, hub, costs, account,
            so_far=lambda: self.totals.tally, done=lambda: len(self._fed.reports),
        )  # fmt: skip
        hub.on_report = shown.refresh
        hub.new_round()  # what another run over this hub has left
        messenger = Messenger(
            grid, self._plan, hub.address, config.clients, timeout=config.client_timeout, idle=shown.refresh
        )
        make = partial(build, **config.strategy)
        strategy = make()
        if strategy.placement == "central":
            hub.start_host(partial(host_from_json, self._plan))
        messenger.warm_up(min(self._workers, config.taking_part))
        evaluator = Evaluator(assembly)
        self._fed = fed = Federation(
            messenger, hub, models=(start.client_model, start.server_model), placement=strategy.placement,
            aggregator=strategy.aggregator, persist=config.optimizer_state == "persist", seed=config.seed,
            files=self._checkpoints.clients, stack=config.engine.stack,
            trained=(evaluator.client.trained, evaluator.server.trained), personal_buffers=strategy.personal_buffers,
            bound=strategy.bound, fewest=config.min_clients, cohort=assembly.cohort,
            bill=Bill(account, strategy.moves, costs.model_size),
            timekeeper=None if (clock := costs.clock) is None else Timekeeper(
                costs, clock, strategy.moves, costs.model_size
            ),
            keeps_time=strategy.keeps_time,
        )  # fmt: skip
        strategy.aggregator.load(start.aggregator)
        if start.round:
            strategy.load_state_dict(start.strategy)
        self._attempts = Attempts(strategy, make, fed, account, fewest=config.min_clients, note=self._progress.note)
        fed.kept, fed.now = dict(start.kept), start.now
        if strategy.note is not None:
            self._progress.note(strategy.note)
        saving = Saving(self._recorder, self._checkpoints, self._origin, self.notes)
        try:
            self._rounds(start.round, evaluator, shown, saving)
        finally:
            saving.save()
        self.own = self._own_scores(evaluator, range(config.clients))

    def _rounds(self, number: int, evaluator: Evaluator, shown: Shown, saving: Saving) -> None:
        """All rounds after `number`."""
        able, first, told = self._account.able(), number + 1, False
        if not self._over(number, able):
            self._recorder.reopen()
        while not self._over(number, able):
            number += 1
            began = time.perf_counter()
            clients = self._sample(number, able)
            before = self._fed.client_model, self._fed.server_model
            self._attempts.play(number, clients, partial(shown.begin, number))
            self._check(number)
            told = told or self._note_unchanged(number, before)
            trained = time.perf_counter()
            able = self._account.able()
            last = self._over(number, able)
            score, own = self._evaluate(evaluator, number, last)
            evaluator.release()
            seconds = time.perf_counter() - began
            self.totals.training_seconds += trained - began
            self.totals.seconds += seconds
            reports = sorted(self._fed.reports, key=lambda report: report.client)
            row = self._row(number, reports, score, seconds)
            if number == first and (number - 1) % self._assembly.config.eval_every:
                self._recorder.unscore()  # the round before was evaluated as the last of a run that goes on now
            self._recorder.add(row, self._client_rows(number, own))
            self._fed.bill.begin()  # it is in the totals by now
            saving.finished(self._state(number))
            self._progress.round_done(row)

    def _check(self, number: int) -> None:
        """Refuse to go on from a global model that is none, or spoilt though no client's was: by an aggregator, say.

        Raises:
            RunFailed: if it is.
        """
        for name, model in (("client", self._fed.client_model), ("server", self._fed.server_model)):
            if not isinstance(model, SideState):
                raise RunFailed(
                    f"strategy={self._assembly.config.strategy['name']} leaves a {type(model).__name__} in "
                    f"fed.{name}_model, which must be a SideState (fed.average gives one for each side)"
                )
            if (found := model.weights.shape) != (wanted := self._shapes[name]):
                raise RunFailed(
                    f"strategy={self._assembly.config.strategy['name']} leaves weights of shape {tuple(found)} in "
                    f"fed.{name}_model, whose shape is {tuple(wanted)}"
                )
            if not model.finite:
                raise RunFailed(
                    f"the global {name}-side model is not finite after round {number}; the checkpoint is that of round "
                    f"{number - 1}",
                    diverged=True,
                )

    def _note_unchanged(self, number: int, before: tuple[SideState, SideState]) -> bool:
        """Say so if what clients have trained is in neither model, which a round that only fills a buffer may want.

        Returns:
            whether it is so.
        """
        after = self._fed.client_model, self._fed.server_model
        trained = any(report.error is None for report in self._fed.reports)
        unchanged = trained and all(model.weights is old.weights for model, old in zip(after, before))
        if unchanged:
            self._progress.note(
                f"strategy={self._assembly.config.strategy['name']} leaves fed.client_model and fed.server_model as "
                f"they were before round {number}"
            )
        return unchanged

    def _start(self) -> State:
        state = self._checkpoints.load()
        if state is None:
            client_model, server_model = self._assembly.initial()
            return State(round=0, client_model=client_model, server_model=server_model)
        self.notes = list(dict.fromkeys([*state.notes, *self.notes]))
        values = dict(state.totals)
        del values["charged"]  # the account's
        self.totals = Totals(Tally(**values.pop("tally")), **values)
        self._recorder.restore(state.round, state.tables)
        return state

    def _over(self, number: int, able: Sequence[int]) -> bool:
        """Whether round `number` was the last."""
        budget, now = self._assembly.config.budget, self._fed.now or 0.0
        late = budget.seconds is not None and now >= budget.seconds
        weary = budget.joules is not None and self._joules() >= budget.joules
        self.out_of_budget = not able or late or weary
        return self.out_of_budget or number == self._assembly.config.rounds

    def _joules(self) -> float:
        """What clients have used so far, the round at hand included."""
        return self.totals.joules + sum(spent.joules for spent in self._fed.bill.time.values())

    def _sample(self, number: int, able: Sequence[int]) -> list[int]:
        """The clients of `able` that take part in a round, ascending."""
        config = self._assembly.config
        if config.taking_part >= len(able):
            return list(able)
        stream = numpy_stream(config.seed, "participation", number)
        if config.sampling == "balanced":
            return sorted(sampling.balanced(stream, able, config.taking_part, self._assembly.label_counts))
        return sorted(sampling.uniform(stream, able, config.taking_part))

    def _evaluate(self, evaluator: Evaluator, number: int, last: bool) -> tuple[Score | None, dict[int, Score]]:
        config, test, fed = self._assembly.config, self._assembly.dataset.test, self._fed
        if number % config.eval_every and not last:
            return None, {}
        clients = [report.client for report in fed.reports]
        own = self._own_scores(evaluator, clients)
        if not any(map(fed.has_own_model, clients)):  # one global model
            return evaluator.score((fed.client_model, fed.server_model), test), own
        scores = [
            evaluator.score(fed.models_of(client), test, client=client) for client in clients
        ]  # who has failed is one of them
        found = [score for score in scores if score is not None]
        return (mean(found) if found else None), own

    def _own_scores(self, evaluator: Evaluator, clients: Iterable[int]) -> dict[int, Score]:
        """Scores of clients on their held-out parts, for those that have any, with the models they would use."""
        parts, train = held_out_rows(self._assembly.plan.clients), self._assembly.dataset.train
        found = {
            client: evaluator.score(self._fed.models_of(client), train, parts[client], client=client)
            for client in clients
            if len(parts[client])
        }
        return {client: score for client, score in found.items() if score is not None}

    def _row(self, number: int, reports: Sequence[Report], score: Score | None, seconds: float) -> Row:
        """Count what the round has cost; its row in `rounds.parquet`."""
        fed, totals = self._fed, self.totals
        finished = Tally()
        for tally in fed.bill.tallies.values():
            totals.tally += tally
        for report in reports:
            if report.error is None:
                finished += report.tally
            else:
                self._progress.note(f"client {report.client} failed in round {number}: {report.error}")
        totals.joules = self._joules()
        totals.sync_bits += sum(fed.bill.sync_bits.values())
        tally = totals.tally
        return {
            "round": number, "samples": tally.samples, "train_loss": finished.mean_loss,
            "test_loss": score.loss if score else None, **_columns(score),
            "uplink_bits": tally.uplink_bits, "downlink_bits": tally.downlink_bits,
            "nominal_bits": tally.nominal_bits, "wire_bytes": tally.wire_bytes, "sync_bits": totals.sync_bits,
            "retransmitted_bits": tally.retransmitted_bits, "xi": tally.xi, "seconds": seconds,
            "simulated_seconds": fed.now, "joules": totals.joules if self._assembly.config.network_config else None,
        }  # fmt: skip

    def _state(self, number: int) -> State:
        """What the round after `number` starts from."""
        fed, totals = self._fed, self.totals
        strategy, aggregator = self._attempts.keep()
        return State(
            round=number, client_model=fed.client_model, server_model=fed.server_model, kept=dict(fed.kept),
            now=fed.now, aggregator=aggregator, strategy=strategy, totals={
                "tally": totals.tally.as_dict(), "sync_bits": totals.sync_bits, "seconds": totals.seconds,
                "training_seconds": totals.training_seconds, "joules": totals.joules,
                "charged": dict(self._account.charged), "acquainted": sorted(self._account.acquainted),
            },
        )  # fmt: skip

    def _client_rows(self, number: int, own: dict[int, Score]) -> list[Row]:
        """Rows in `clients.parquet`, of all that have cost something, in whichever attempt."""
        bill, config, rows = self._fed.bill, self._assembly.config, []
        for client, (attempt, report) in sorted(bill.last.items()):
            tally, error = bill.tallies[client], report.error
            if error is None and attempt < self._fed.attempt:
                error = "the round was repeated when its share of the budget was spent"
            befell = injected(config.faults, config.seed, client=client, round=number, attempt=attempt)
            rows.append({
                "round": number, "client": client, "samples": tally.samples,
                "train_loss": report.tally.mean_loss if error is None else None, **_columns(own.get(client)),
                "uplink_bits": tally.uplink_bits, "downlink_bits": tally.downlink_bits,
                "sync_bits": bill.sync_bits[client], "retransmitted_bits": tally.retransmitted_bits,
                **_time(bill.time.get(client)), "failed": error is not None, "reason": error,
                "injected": ",".join(befell) or None,
            })  # fmt: skip
        return rows


def _time(spent: Spent | None) -> Row:
    """Simulated time and energy as the tables have them."""
    if spent is None:
        return {}
    return {
        "compute_seconds": spent.compute, "transfer_seconds": spent.transfer, "waiting_seconds": spent.waiting,
        "joules": spent.joules,
    }  # fmt: skip


def _columns(score: Score | None) -> Row:
    """Metrics as the tables have them."""
    values = {"accuracy": None} if score is None else score.metrics
    return {test_column(name): value for name, value in values.items()}
