"""The server of an experiment: its rounds, one after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from flwr.serverapp import Grid

from flsplit.assembly import assembly_for, host_from_json
from flsplit.checkpoint import Checkpoints, State
from flsplit.clients import held_out_rows
from flsplit.evaluation import Evaluator, Score
from flsplit.federation import Federation
from flsplit.hub import Hub
from flsplit.ledger import Tally
from flsplit.messenger import Messenger
from flsplit.record import Recorder, Row
from flsplit.report.console import Progress
from flsplit.strategy import build
from flsplit.streams import numpy_stream
from flsplit.worker import Report

SHOW_EVERY = 0.25  # seconds


@dataclass
class Totals:
    """What has been counted since the first round; kept in checkpoints."""

    tally: Tally
    sync_bits: int = 0
    seconds: float = 0.0  # of rounds, evaluation included, start-up apart
    training_seconds: float = 0.0  # of rounds, start-up and evaluation apart


class Server:
    """Runs the rounds of one experiment over a grid.

    Args:
        plan: of the experiment, as JSON.
        recorder: of the run's tables.
        checkpoints: of the run.
        progress: the live display.
        workers: client processes to warm up.
    """

    def __init__(
        self, plan: str, recorder: Recorder, checkpoints: Checkpoints, progress: Progress, *, workers: int
    ) -> None:
        self._plan, self._recorder, self._checkpoints, self._progress = plan, recorder, checkpoints, progress
        self._workers = workers
        self._shown = 0.0
        self.totals = Totals(Tally())

    def run(self, grid: Grid, hub: Hub) -> None:
        """All rounds that are still to be run.

        Raises:
            RunFailed: if a round brings no model back.
        """
        self._assembly = assembly = assembly_for(self._plan)
        config = assembly.config
        self._hub = hub
        hub.on_report = self._show
        messenger = Messenger(grid, self._plan, hub.address, config.clients, idle=self._show)
        strategy = build(**config.strategy)
        if strategy.placement == "central":
            hub.start_host(partial(host_from_json, self._plan))
        messenger.warm_up(min(self._workers, config.taking_part))
        evaluator = Evaluator(assembly)
        start = self._start()
        self._fed = fed = Federation(
            messenger, hub, models=(start.client_model, start.server_model), placement=strategy.placement,
            aggregator=strategy.aggregator, persist=config.optimizer_state == "persist", seed=config.seed,
            moments_folder=self._checkpoints.moments,
        )  # fmt: skip
        fed.moments = dict(start.moments)
        for number in range(start.round + 1, config.rounds + 1):
            began = time.perf_counter()
            clients = self._sample(number)
            fed.begin(number)
            self._expect(number, clients)
            strategy.round(fed, clients)
            trained = time.perf_counter()
            score, own = self._evaluate(evaluator, number)
            seconds = time.perf_counter() - began
            self.totals.training_seconds += trained - began
            self.totals.seconds += seconds
            self._finish(number, score, own, seconds)

    def _start(self) -> State:
        state = self._checkpoints.load()
        if state is None:
            client_model, server_model = self._assembly.initial()
            return State(round=0, client_model=client_model, server_model=server_model, moments={}, totals={})
        values = dict(state.totals)
        self.totals = Totals(Tally(**values.pop("tally")), **values)
        self._recorder.restore(state.round)
        return state

    def _sample(self, number: int) -> list[int]:
        """The clients that take part in a round, ascending."""
        config = self._assembly.config
        if config.taking_part == config.clients:
            return list(range(config.clients))
        stream = numpy_stream(config.seed, "participation", number)
        return sorted(int(c) for c in stream.choice(config.clients, config.taking_part, replace=False))

    def _evaluate(self, evaluator: Evaluator, number: int) -> tuple[Score | None, dict[int, float]]:
        config, dataset, fed = self._assembly.config, self._assembly.dataset, self._fed
        if number % config.eval_every and number != config.rounds:
            return None, {}
        models = (fed.client_model, fed.server_model)
        parts = held_out_rows(self._assembly.plan.clients)
        own = {}
        for report in fed.reports:
            score = evaluator.score(models, dataset.train, parts[report.client]) if len(parts[report.client]) else None
            if score is not None:
                own[report.client] = score.accuracy
        return evaluator.score(models, dataset.test), own

    def _finish(self, number: int, score: Score | None, own: dict[int, float], seconds: float) -> None:
        fed, totals = self._fed, self.totals
        reports = sorted(fed.reports, key=lambda report: report.client)
        finished = Tally()
        for report in reports:
            totals.tally += report.tally
            if report.error is None:
                finished += report.tally
            else:
                self._progress.note(f"client {report.client} failed in round {number}: {report.error}")
        totals.sync_bits += sum(fed.sync_bits.values())
        tally = totals.tally
        row: Row = {
            "round": number, "samples": tally.samples, "train_loss": finished.mean_loss,
            "test_loss": score.loss if score else None, "test_accuracy": score.accuracy if score else None,
            "uplink_bits": tally.uplink_bits, "downlink_bits": tally.downlink_bits,
            "nominal_bits": tally.nominal_bits, "wire_bytes": tally.wire_bytes, "sync_bits": totals.sync_bits,
            "xi": tally.xi, "seconds": seconds,
        }  # fmt: skip
        self._recorder.add(row, [self._client_row(number, report, own) for report in reports])
        self._checkpoints.save(
            State(
                round=number, client_model=fed.client_model, server_model=fed.server_model, moments=fed.moments,
                totals={
                    "tally": tally.as_dict(), "sync_bits": totals.sync_bits, "seconds": totals.seconds,
                    "training_seconds": totals.training_seconds,
                },
            )
        )  # fmt: skip
        self._progress.round_done(row)

    def _client_row(self, number: int, report: Report, own: dict[int, float]) -> Row:
        tally, failed = report.tally, report.error is not None
        return {
            "round": number, "client": report.client, "samples": tally.samples,
            "train_loss": None if failed else tally.mean_loss, "test_accuracy": own.get(report.client),
            "uplink_bits": tally.uplink_bits, "downlink_bits": tally.downlink_bits,
            "sync_bits": self._fed.sync_bits[report.client], "failed": failed,
        }  # fmt: skip

    def _expect(self, number: int, clients: Sequence[int]) -> None:
        """Work out how many steps the round will take, for the display."""
        config, rows = self._assembly.config, self._assembly.client_rows
        self._round = number
        self._steps = sum(
            len(
                self._assembly.pipeline.steps(
                    len(rows[c]), config.batch_size, config.local_epochs, config.local_steps,
                    self._assembly.group_size,
                )
            )
            for c in clients
        )  # fmt: skip

    def _show(self) -> None:
        """Bring the display up to date while clients work."""
        now = time.monotonic()
        if now - self._shown < SHOW_EVERY:
            return
        self._shown = now
        reports = self._hub.progress()
        if not reports:
            return
        steps = sum(tally.steps for tally, _ in reports.values())
        losses = [(loss, tally.steps) for tally, loss in reports.values() if np.isfinite(loss)]
        weight = sum(n for _, n in losses)
        self._progress.step(
            round=self._round, step=steps, steps=self._steps,
            loss=sum(loss * n for loss, n in losses) / weight if weight else float("nan"),
            uplink_bits=self.totals.tally.uplink_bits + sum(t.uplink_bits for t, _ in reports.values()),
            downlink_bits=self.totals.tally.downlink_bits + sum(t.downlink_bits for t, _ in reports.values()),
        )  # fmt: skip
