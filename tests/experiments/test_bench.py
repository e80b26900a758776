"""The bench: what its rows say, and that the two sides of each comparison do the same work."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.serverapp import Grid

import flsplit
from experiments.bench import __main__ as bench
from experiments.bench import (
    adc,
    checks,
    clients,
    endurance,
    gpu,
    images,
    link,
    loggers,
    memory,
    message_client,
    message_splitfed,
    messages,
    pipeline,
    scale,
    single,
    stacked,
)
from experiments.bench.case import compare, measure
from experiments.bench.watch import watched
from experiments.bench.workload import Workload
from flsplit import engine
from flsplit.compose import compose
from flsplit.experiment import lay_out, preparation, prepare
from flsplit.record.loggers import Loggers
from flsplit.record.loggers.csv import CsvLogger
from flsplit.server.checkpoint import Checkpoints
from flsplit.server.summary import peak_megabytes
from flsplit.transport.hub import Hub

TINY = Workload(model="vit_micro", size=16, pixels=16, batch=8, steps=2)
SHORT = ("clients=2", "rounds=1", "dataset.train_limit=60", "dataset.test_limit=20")


@pytest.mark.parametrize(("goal", "at_least", "met"), [(1.9, True, True), (2.1, True, False), (2.1, False, True)])
def test_a_ratio_is_the_median_of_pairs_after_one_that_warms_up(goal: float, at_least: bool, met: bool) -> None:
    numbers = count()
    ours = iter([100.0, 2.0, 1.0, 9.0])
    result = compare(
        "case", "what", lambda: next(ours), lambda: 1.0 if next(numbers) else 7.0, pairs=3, goal=goal,
        at_least=at_least, note="",
    )  # fmt: skip
    assert (result.low, result.ratio, result.high) == (1.0, 2.0, 9.0)
    assert result.met is met and result.row()["goal"] == f"{'>=' if at_least else '<='} {goal}"
    assert ("NOT met" in result.line()) is not met


def test_a_number_without_a_goal_is_only_reported() -> None:
    result = measure("case", "what", lambda: 1.0, pairs=1, goal=None, at_least=True, note="")
    assert result.row()["goal"] is None and result.row()["met"] is None
    assert "met" not in result.line() and "no goal" in result.line()


@pytest.mark.slow
def test_the_plain_loop_trains_as_the_platform_does() -> None:
    with TINY.made() as made:
        step = single.plain_step(made)
        losses = [float(step(*batch)) for batch in made.batches()]
        run = flsplit.run(made.keys())
    assert run.summary["samples"] == made.batch * made.steps
    assert sum(losses) / len(losses) == pytest.approx(run.rounds.train_loss.item(), rel=1e-5)


@pytest.mark.slow
def test_the_loop_with_known_clusters_starts_as_adc_does() -> None:
    with TINY.made() as made:
        fixed = adc.clusters_known(made)
        first = float(adc.merging_step(made, fixed)(*next(made.batches())))
        run = flsplit.run(made.keys(compressor="adc", compressor__ratio=adc.RATIO, local_steps=1))
    assert first == pytest.approx(run.rounds.train_loss.item(), rel=1e-5)
    assert len(fixed) == made.steps and all(torch.allclose(f.weights.sum(1), torch.ones(2)) for f in fixed)


@pytest.mark.slow
def test_many_clients_do_the_work_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def note(workload: Workload, **more: object) -> float:
        summary = flsplit.run(workload.keys(**{**more, "engine": "inline"})).summary
        done.append((summary["samples"], summary["uplink_bits"]))
        return 1.0

    monkeypatch.setattr(Workload, "run", note)
    assert len(list(clients.run(pairs=1, workload=replace(TINY, steps=4), clients=4))) == 2
    assert len(done) == 8 and len(set(done)) == 1 and done[0][0] == 4 * TINY.batch


@pytest.mark.slow
def test_link_and_clock_take_some_of_a_step() -> None:
    found = list(link.run(pairs=1, workload=TINY))
    assert len(found) == len(link.LINKS) + 1 and all(0 < result.ratio < 100 for result in found)
    with TINY.made() as made:
        assert link.share(made, {}) < 1


@pytest.mark.slow
def test_stacked_and_single_clients_do_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def note(workload: Workload, **more: object) -> float:
        summary = flsplit.run(workload.keys(**more)).summary
        done.append((more["engine__stack"], summary["samples"], summary["uplink_bits"]))
        return 1.0

    monkeypatch.setattr(Workload, "run", note)
    with replace(stacked.CPU, batch=4, steps=3 * stacked.STEPS).made() as made:
        stacked.gain(made, method="adc", clients=3, threads=1, pairs=1)
    assert [stack for stack, *_ in done] == [3, 1] * 2
    assert len({tuple(work) for _, *work in done}) == 1 and done[0][1] == 3 * 4 * 2 * stacked.STEPS


def test_the_gpu_case_is_left_out_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(gpu.run(pairs=1)) == []


def test_graphs_are_measured_against_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches are those of the additional steps; on a CPU there would be none."""

    def run(workload: Workload, engine__graphs: str = "true", **more: object) -> float:
        for _ in range(50 + workload.steps * (2 if engine__graphs == "true" else 9)):
            with torch.profiler.record_function("cudaLaunchKernel"):
                pass
        return 300.0 if engine__graphs == "true" else 100.0

    monkeypatch.setattr(gpu, "_ACTIVITIES", (torch.profiler.ProfilerActivity.CPU,))
    monkeypatch.setattr(gpu, "_STEPS", (4, 2))
    monkeypatch.setattr(Workload, "run", run)
    assert [result.ratio for result in gpu.graphs(TINY, {}, "base", pairs=1)] == [3, 300, 2, 9]


@pytest.mark.slow
def test_the_rounds_of_the_clock_hold_the_whole_run() -> None:
    with replace(TINY, steps=6).made() as made:
        keys = made.keys(clients=3, rounds=4, local_steps=1, eval_every=4)
        began = time.perf_counter()
        rounds = scale.rounds_seconds(keys)
        assert len(rounds) == 4 and 0 < sum(rounds) <= time.perf_counter() - began
        assert math.isfinite(scale.seconds_beyond(made, clients=3, taking_part=2, rounds=2))


def test_a_pass_beyond_training_is_what_the_longer_run_took_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def seconds(keys: list[str]) -> list[float]:
        asked.append(keys)
        return [100.0, 100.0, 3.0, 3.0, 100.0] if "clients=20" in keys else [100.0, 100.0, 4.1, 100.0]

    monkeypatch.setattr(scale, "rounds_seconds", seconds)
    with TINY.made() as made:
        assert scale.seconds_beyond(made, clients=20, taking_part=10, rounds=2) == pytest.approx((6.0 - 4.1) / 19)
    assert {"clients=20", "clients_per_round=10", "rounds=5", "local_steps=1"} < set(asked[0])
    assert {"clients=1", "clients_per_round=1", "rounds=4", "local_steps=20"} < set(asked[1])


@pytest.mark.slow
def test_memory_is_that_of_the_process_that_ran() -> None:
    with replace(TINY, steps=4).made() as made:
        ballast = bytearray(b"x" * 2**30)  # of this process: it must not be counted
        megabytes = scale.peak_megabytes(made, "inline", 4, 2)
    assert len(ballast) and 100 < megabytes < min(peak_megabytes(), 1024)


@pytest.mark.slow
@pytest.mark.parametrize("photos", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_pipeline_alone_makes_every_image(photos: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: float(next(ticks)))
    with TINY.made() as made:
        images.photographs(made.folder / "photos", 8)
        assert pipeline.pipeline_alone(made, photos=photos) == TINY.batch * TINY.steps
        assert pipeline.training_alone(made) == TINY.batch


SPLITFED = ["clients=3", "dataset.train_limit=60", "dataset.test_limit=10", "batch_size=8", "partition.alpha=1"]


def check_messages(outcome: message_splitfed.Outcome, run: flsplit.Run) -> None:
    state = Checkpoints(run.path / "checkpoint").load()
    assert state is not None
    assert torch.equal(outcome.client, state.client_model.weights)
    assert torch.equal(outcome.server, state.server_model.weights)
    assert outcome.samples == run.summary["samples"] and outcome.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["base", "adc"])
def test_splitfed_by_messages_computes_what_splitfed_v1_does(compressor: str, tmp_path: Path) -> None:
    keys = [*SPLITFED, f"compressor={compressor}", "rounds=2", "engine=inline"]
    run = flsplit.run([*keys, f"out={tmp_path / 'ours'}"])
    prepared = prepare(compose([*keys, f"out={tmp_path / 'theirs'}"]))
    lay_out(prepared)
    found: list[message_splitfed.Outcome] = []

    def serve(grid: Grid, hub: Hub) -> None:
        found.append(message_splitfed.serve(grid, prepared.plan.to_json()))

    engine.run(prepared.plan, message_client.app, 1, serve)
    check_messages(found[0], run)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_and_so_it_does_on_ray(tmp_path: Path) -> None:
    keys = [*SPLITFED, "compressor=base", "rounds=1"]
    run = flsplit.run([*keys, "engine=inline", f"out={tmp_path / 'ours'}"])
    check_messages(messages.with_messages(messages.on_ray(keys, tmp_path)), run)


class Desk:
    """Something whose calls take time."""

    def fetch(self) -> None:
        time.sleep(0.02)
        self.sign()

    def sign(self) -> None:
        time.sleep(0.02)


def test_a_call_within_a_watched_call_is_a_part_of_it() -> None:
    desk = Desk()
    with watched((Desk, "fetch"), (Desk, "sign")) as spent:
        desk.fetch()
        desk.sign()
    assert len(spent) == 2 and spent[0] >= 0.04 and 0.02 <= spent[1] < spent[0]
    desk.sign()
    assert len(spent) == 2


def test_nobody_waits_for_a_call_in_another_thread() -> None:
    with watched((Desk, "fetch")) as spent, ThreadPoolExecutor() as beside:
        beside.submit(Desk().fetch).result()
    assert spent == []


@pytest.mark.some
def test_checks_that_take_longer_are_seen_in_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = checks.share(SHORT)
    origin_of = preparation.origin_of

    def slow(*args: Any) -> dict[str, Any]:
        time.sleep(1)
        return origin_of(*args)

    monkeypatch.setattr(preparation, "origin_of", slow)
    assert 0 < quick < checks.share(SHORT) < 100


@pytest.mark.slow
def test_a_logger_that_takes_longer_is_seen_in_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Loggers.log

    def slow(*args: Any) -> None:
        time.sleep(0.05)
        log(*args)

    with replace(TINY, batch=16, steps=1).made() as made:
        quick = loggers.share(made, "csv")
        monkeypatch.setattr(Loggers, "log", slow)
        assert 0 < quick < loggers.share(made, "csv") < 100


@pytest.mark.slow
def test_every_round_is_shown_to_a_logger_that_is_there_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(CsvLogger, "log", lambda self, rounds, new: shown.append(new))
    with replace(TINY, batch=16, steps=1).made() as made:
        loggers.share(made, "csv")
        assert shown == [1] * loggers.ROUNDS
        monkeypatch.setattr(CsvLogger, "log", None)
        with pytest.raises(RuntimeError, match="logger=csv has failed"):
            loggers.share(made, "csv")


def test_growth_is_that_of_the_last_tenth_over_the_second() -> None:
    found = endurance.Long([500.0, *[100.0] * 4, *[110.0] * 5], [9.0, *[1.0] * 4, *[1.5] * 5], 60.0)
    assert found.growth() == pytest.approx(10) and found.slowing() == 1.5


def test_memory_of_all_processes_is_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "Rss:  90 kB\nPss:  25 kB\nPss_Anon:  5 kB")
    assert memory.proportional(1) == 25_600


@pytest.mark.slow
def test_a_long_run_is_followed_round_by_round(tmp_path: Path) -> None:
    found = endurance.follow(["clients=3", "rounds=4", "engine=inline", "network=lte", "dataset.train_limit=60"])
    assert (len(found.megabytes), len(found.seconds)) == (3, 4) and min(found.megabytes) > 100
    assert found.simulated > 0
    endurance.draw(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("rounds", [-1, 1, 2])
def test_a_run_too_short_to_compare_is_refused(
    rounds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last round's memory is not seen, so that three have a first and a second."""
    three = endurance.Long([500.0, 100.0], [9.0, 1.0, 1.5], 60.0)
    monkeypatch.setattr(endurance, "follow", lambda keys: three)
    with pytest.raises(SystemExit) as left:
        endurance.main([str(tmp_path / "a.png"), "--rounds", str(rounds)])
    assert left.value.code == 2 and f"--rounds must be at least 3, got {rounds}" in capsys.readouterr().err
    assert endurance.main([str(tmp_path / "a.png"), "--rounds", "3"]) == 0


@pytest.mark.slow
def test_a_case_runs_and_leaves_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.CASES, "single", lambda *, pairs: single.run(pairs=pairs, workload=TINY))
    assert bench.main(["single", "--pairs", "1", "--json", str(tmp_path / "bench.json")]) == 0
    [row] = json.loads((tmp_path / "bench.json").read_text())
    assert row.keys() == {"case", "what", "ratio", "low", "high", "goal", "met", "conditions"}
    assert row["ratio"] > 0 and "single" in capsys.readouterr().out


def test_help_says_what_each_case_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--help"])
    shown = capsys.readouterr().out
    assert "all cases if none is named" in shown and "  latency    what a round of ten clients takes on Ray" in shown
    assert [line.split()[0] for line in shown[shown.index("CASE:") :].splitlines()[1:]] == list(bench.CASES)


@pytest.mark.parametrize("arguments", [["nothing"], ["--pairs", "0"], ["--json", "/does/not/exist/x.json"]])
def test_mistakes_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        bench.main(arguments)
    assert left.value.code == 2 and "error" in capsys.readouterr().err
