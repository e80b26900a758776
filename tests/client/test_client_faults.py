"""Faults on purpose: which client meets which, what it costs, and that no model is ever spoilt by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

import flsplit
from compressors import BatchShape, Floats, Integers, Layout, Payload
from flsplit.client.faults import ClientFailed, drawn
from flsplit.config.faults import FaultsConfig, injected
from flsplit.errors import RunFailed
from flsplit.record.run import read_run
from flsplit.server.checkpoint import Checkpoints
from flsplit.server.evaluation import Evaluator
from flsplit.server.federation import Federation
from flsplit.split.messages import Uplink
from strategies.splitfed_v1 import SplitFedV1

KEYS = [
    "engine=inline", "clients=4", "rounds=4", "batch_size=8", "dataset.train_limit=120", "dataset.test_limit=20",
    "compressor=base", "partition=iid",
]  # fmt: skip
STRATEGIES = {
    "v1": ["strategy=splitfed_v1"],
    "v1-central": ["strategy=splitfed_v1", "strategy.placement=central"],
    "v2": ["strategy=splitfed_v2"],
    "v2-step": ["strategy=splitfed_v2", "strategy.turn=step"],
    "v3": ["strategy=splitfed_v3"],
    "sequential": ["strategy=sequential"],
    "parallel": ["strategy=parallel"],
    "parallel-round": ["strategy=parallel", "strategy.sync=round"],
    "fedadam": ["strategy.aggregator=fedadam"],
}


def test_faults_are_as_likely_as_asked_and_the_same_again() -> None:
    config = FaultsConfig(dropout=0.2, nan=0.5)

    def of(seed: int) -> list[tuple[str, ...]]:
        return [injected(config, seed, client=c, round=r, attempt=0) for c in range(100) for r in range(1, 11)]

    found = of(0)
    assert found == of(0) != of(1)
    assert found != [injected(config, 0, client=c, round=r, attempt=1) for c in range(100) for r in range(1, 11)]
    assert 150 < found.count(("dropout",)) < 250
    assert 330 < found.count(("nan",)) < 470  # of those that are there
    assert set(found) == {(), ("dropout",), ("nan",)}


LAYOUT = Layout((Floats((2, 3, 4)), Floats((5,))), (Integers((3,), 2),), Integers((2,), 1))
CODED = Layout((), (Integers((3,), 2), Integers((2, 3, 4), 16, protected=False)))


def uplink(step: int = 0) -> Uplink:
    payload = Payload((torch.ones(2, 3, 4), torch.ones(5)), (torch.arange(3),), torch.arange(2))
    return Uplink(client=0, shape=BatchShape(batch=2, tokens=3, width=4, classes=10), payload=payload, step=step)


@pytest.mark.parametrize("seed", range(20))
def test_a_flip_turns_one_bit_over_in_one_step(seed: int) -> None:
    faults = drawn(FaultsConfig(flip=1.0), seed, client=1, round=1, attempt=0, steps=3)
    for step in range(3):
        sent = uplink(step)
        arrived = faults.on_way(sent, lambda: LAYOUT)
        turned = 0
        for a, b in zip(arrived.payload.floats, sent.payload.floats):
            bits = (a.view(torch.int32) ^ b.view(torch.int32)).view(-1).tolist()
            turned += sum((word % 2**32).bit_count() for word in bits)
        assert turned == (step == faults.step)
        assert all(torch.equal(t, torch.ones_like(t)) for t in sent.payload.floats)  # the sender's is untouched


def test_nan_stays_and_a_crash_happens_once() -> None:
    faults = drawn(FaultsConfig(nan=1.0), 0, client=1, round=1, attempt=0, steps=6)
    arrived = [faults.on_way(uplink(step), lambda: LAYOUT).payload for step in range(6)]
    spoilt = [bool(payload.floats[0].isnan().all()) for payload in arrived]
    assert spoilt == [step >= faults.step for step in range(6)]
    faults = drawn(FaultsConfig(crash=1.0), 0, client=1, round=1, attempt=0, steps=1)
    with pytest.raises(ClientFailed, match=r"crashed in step 1 \(faults\.crash\)"):
        faults.on_way(uplink(0), lambda: LAYOUT)


@pytest.mark.parametrize("seed", range(5))
def test_codes_are_hit_where_nothing_else_stands_for_values(seed: int) -> None:
    shape = BatchShape(batch=2, tokens=3, width=4, classes=10)
    sent = Uplink(
        client=0, shape=shape, payload=Payload((), (torch.arange(3), torch.full((2, 3, 4), 7))), round=1, step=0
    )
    turned = drawn(FaultsConfig(flip=1.0), seed, client=1, round=1, attempt=0, steps=1).on_way(sent, lambda: CODED)
    codes, other = turned.payload.integers[1], turned.payload.integers[0]
    assert sum(int(x).bit_count() for x in (codes ^ 7).flatten()) == 1 and int(codes.max()) < 2**16
    assert torch.equal(other, torch.arange(3)) and torch.equal(sent.payload.integers[1], torch.full((2, 3, 4), 7))
    spoilt = drawn(FaultsConfig(nan=1.0), seed, client=1, round=1, attempt=0, steps=1).on_way(sent, lambda: CODED)
    half = spoilt.payload.integers[1].to(torch.int16).view(torch.float16)
    assert half.isnan().all() and torch.equal(spoilt.payload.integers[0], torch.arange(3))


def weights(run: flsplit.Run) -> torch.Tensor:
    state = Checkpoints(run.path / "checkpoint").load()
    assert state is not None
    return torch.cat([state.client_model.weights, state.server_model.weights])


@pytest.mark.some
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_client_that_sends_nan_has_failed_and_spoils_nothing(name: str, tmp_path: Path) -> None:
    run = flsplit.run([*KEYS, *STRATEGIES[name], "faults.nan=0.3", f"out={tmp_path / 'run'}"])
    clients = run.clients
    hit = clients.injected == "nan"
    assert hit.any() and not hit.all()
    assert (clients.failed == hit).all()
    assert clients[hit].reason.str.contains("not finite").all() and clients[~hit].reason.isna().all()
    assert clients[hit].train_loss.isna().all() and (clients[hit].uplink_bits > 0).all()
    assert run.rounds.uplink_bits.iloc[-1] == clients.uplink_bits.sum()
    assert run.rounds.train_loss.notna().all() and run.rounds.test_loss.notna().all()
    assert torch.isfinite(weights(run)).all()
    assert run.summary["status"] == "completed"


def test_who_is_away_sends_nothing_and_the_others_are_as_without_it(tmp_path: Path) -> None:
    run = flsplit.run([*KEYS, "faults.dropout=0.4", "faults.straggle=0.2", "faults.straggle_seconds=0.01",
                       f"out={tmp_path / 'run'}"])  # fmt: skip
    away = run.clients.injected == "dropout"
    assert away.any() and (run.clients.failed == away).all() and (run.clients.injected == "straggle").any()
    assert (run.clients[away][["samples", "uplink_bits", "downlink_bits"]] == 0).all(axis=None)
    assert set(run.clients[away].reason) == {"it is away (faults.dropout)"}


def test_clients_with_models_of_their_own_are_all_evaluated_those_that_failed_too(tmp_path: Path) -> None:
    run = flsplit.run([*KEYS, "rounds=1", "strategy=splitfed_v3", "faults.dropout=0.4", f"out={tmp_path / 'run'}"])
    assert 0 < run.clients.failed.sum() < 4
    losses = []
    for number in range(4):
        assembly, client, server = flsplit.trained(tmp_path / "run", client=number)
        score = Evaluator(assembly).score((client.state(), server.state()), assembly.dataset.test)
        assert score is not None
        losses.append(score.loss)
    assert len(set(losses)) == 1 + (~run.clients.failed).sum()
    assert run.rounds.test_loss.iloc[-1] == pytest.approx(sum(losses) / 4, rel=1e-6)


@pytest.mark.slow
def test_the_same_faults_meet_every_compressor(tmp_path: Path) -> None:
    keys = [*KEYS, "rounds=2", "faults.crash=0.3", "faults.flip=0.3"]
    keys.remove("compressor=base")
    both = [flsplit.run([*keys, f"compressor={name}", f"out={tmp_path / name}"]).clients for name in ("base", "topk")]
    pd.testing.assert_series_equal(both[0].injected, both[1].injected)
    assert both[0].injected.notna().any()


@pytest.mark.slow
@pytest.mark.parametrize("on_outlier", ["clip", "fail"])
def test_an_update_above_the_bound(on_outlier: str, tmp_path: Path) -> None:
    free = flsplit.run([*KEYS, "rounds=1", f"out={tmp_path / 'free'}"])
    start = [state.weights for state in initial(tmp_path)]
    size = float((weights(free) - torch.cat(start)).norm())
    keys = [*KEYS, "rounds=1", f"strategy.on_outlier={on_outlier}"]
    loose = flsplit.run([*keys, "strategy.max_update_norm=1000", f"out={tmp_path / 'loose'}"])
    assert torch.equal(weights(free), weights(loose))
    tight = [*keys, f"strategy.max_update_norm={size / 2}", f"out={tmp_path / 'tight'}"]
    if on_outlier == "fail":
        with pytest.raises(RunFailed, match="every client failed in round 1; client 0: its update has a norm of"):
            flsplit.run(tight)
        return
    run = flsplit.run(tight)
    assert float((weights(run) - torch.cat(start)).norm()) <= size / 2 * 1.0001
    assert not run.clients.failed.any()


def initial(folder: Path, *more: str) -> list[flsplit.split.side.SideState]:
    from flsplit.assembly import Assembly
    from flsplit.compose import compose
    from flsplit.experiment import prepare

    return list(Assembly(prepare(compose([*KEYS, *more, f"out={folder / 'none'}"])).plan).initial())


@pytest.mark.slow
def test_an_aggregator_that_spoils_the_model_ends_the_run_at_the_last_good_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flsplit.server.aggregation import Aggregator

    aggregate = Aggregator.aggregate

    def spoilt(self: Aggregator, number: int, *args: object, **keys: object) -> torch.Tensor:
        new = aggregate(self, number, *args, **keys)  # type: ignore[arg-type]
        return new / 0 if number == 3 else new

    monkeypatch.setattr(Aggregator, "aggregate", spoilt)
    with pytest.raises(RunFailed, match="global client-side model is not finite after round 3"):
        flsplit.run([*KEYS, f"out={tmp_path / 'run'}"])
    run = read_run(tmp_path / "run")
    state = Checkpoints(tmp_path / "run" / "checkpoint").load()
    assert run.summary["status"] == "failed" and len(run.rounds) == 2
    assert state is not None and state.round == 2 and torch.isfinite(state.client_model.weights).all()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["min_clients=3", "strategy.aggregator=krum"])  # which takes three
def test_a_round_with_too_few_is_repeated_once_and_counts_what_was_sent(key: str, tmp_path: Path) -> None:
    keys = [*KEYS, "rounds=6", "faults.crash=0.25", key, "seed=5"]
    run = flsplit.run([*keys, f"out={tmp_path / 'run'}"])
    config = FaultsConfig(crash=0.25)

    def crashes(attempt: int) -> list[int]:
        found = {r: [injected(config, 5, client=c, round=r, attempt=attempt) for c in range(4)] for r in range(1, 7)}
        return [sum(map(bool, of_round)) for of_round in found.values()]

    failed = crashes(0), crashes(1)
    repeated = [first > 1 for first in failed[0]]
    assert any(repeated) and not all(repeated)
    seen = run.clients.groupby("round").failed.sum().tolist()
    assert seen == [failed[int(again)][r] for r, again in enumerate(repeated)]
    samples = run.clients.groupby("round").samples.sum().tolist()
    assert all((n > 120) == again for n, again in zip(samples, repeated))
    assert run.rounds["samples"].iloc[-1] == run.clients["samples"].sum()
    assert run.rounds.sync_bits.iloc[-1] == run.clients.sync_bits.sum()


def test_twice_too_few_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"of 4 clients are left in round 1, below min_clients=4; client \d: it"):
        flsplit.run([*KEYS, "faults.dropout=0.6", "min_clients=4", f"out={tmp_path / 'run'}"])


@pytest.mark.slow
@pytest.mark.parametrize("sync", ["gradient", "round"])
def test_those_who_are_left_of_a_joint_step_train_on(sync: str, tmp_path: Path) -> None:
    keys = ["local_steps=6", "strategy=parallel", f"strategy.sync={sync}", "seed=2"]
    run = flsplit.run([*KEYS, *keys, "rounds=1", "faults.nan=0.3", f"out={tmp_path / 'run'}"])
    hit = run.clients.injected == "nan"
    assert 0 < hit.sum() < 4 and (run.clients.failed == hit).all()
    assert (run.clients[hit].samples < 48).all() and (run.clients[~hit].samples == 48).all()
    start = initial(tmp_path, *keys)
    moved = weights(run) - torch.cat([state.weights for state in start])
    client = start[0].weights.numel()
    assert moved[:client].abs().max() > 0 and moved[client:].abs().max() > 0


class Remembering(SplitFedV1):
    """Remembers what it has trained, and forgets nothing by itself."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.seen: list[int] = []

    def state_dict(self) -> dict[str, object]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        self.seen = state["seen"]

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        self.seen.append(fed.round)
        super().round(fed, clients)


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> list[Remembering]:
    made = []

    def build(name: str, **options: object) -> Remembering:
        made.append(Remembering(**options))
        return made[-1]

    monkeypatch.setattr("flsplit.server.app.build", build)
    return made


@pytest.mark.slow
def test_a_round_that_is_repeated_begins_with_the_state_of_the_strategy_too(
    remembering: list[Remembering], tmp_path: Path
) -> None:
    run = flsplit.run([*KEYS, "rounds=6", "faults.crash=0.25", "min_clients=3", "seed=5", f"out={tmp_path / 'run'}"])
    assert (run.clients.groupby("round").samples.sum() > 120).any() and len(remembering) > 1  # some were repeated
    assert remembering[-1].seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_client_that_is_trained_twice_in_a_round_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: SplitFedV1, fed: Federation, clients: Sequence[int]) -> None:
        fed.client_model, fed.server_model = fed.average(fed.train(clients))
        fed.client_model, fed.server_model = fed.average(fed.train(clients[1:2]))

    monkeypatch.setattr(SplitFedV1, "round", twice)
    with pytest.raises(RunFailed, match="the strategy trains client 1 twice in round 1; a client has one row"):
        flsplit.run([*KEYS, f"out={tmp_path / 'run'}"])


@pytest.mark.slow
def test_a_budget_that_is_used_up_pays_for_no_other_attempt(tmp_path: Path) -> None:
    keys = [*KEYS, "rounds=null", "min_clients=4", "budget.share=pool", "budget.base_epochs=4", "faults.crash=0.3"]
    keys += ["budget.count_models=true", "seed=1", f"out={tmp_path / 'run'}"]
    run = flsplit.run([key for key in keys if key != "rounds=4"])
    assert run.summary["status"] == "budget" and len(run.rounds) == 1
    assert run.clients.failed.tolist().count(True) == 1
    sent = ["samples", "uplink_bits", "downlink_bits", "sync_bits"]
    assert (run.rounds[sent].iloc[-1] == run.clients[sent].sum()).all() and (run.clients.sync_bits > 0).all()
    assert torch.equal(weights(run), torch.cat([state.weights for state in initial(tmp_path, "seed=1")]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 14])
def test_who_has_spent_its_share_takes_no_part_in_another_attempt(seed: int, tmp_path: Path) -> None:
    keys = [*KEYS, "rounds=null", "min_clients=2", "budget.base_epochs=2", "faults.crash=0.4", "local_epochs=2"]
    keys = [key for key in keys if key not in ("rounds=4", "partition=iid")]
    run = flsplit.run([*keys, "partition.alpha=0.5", f"seed={seed}", f"out={tmp_path / 'run'}"])
    assert run.clients.failed.any() and run.summary["status"] == "budget"
    assert ((run.clients.samples > 0) | run.clients.failed).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [31, 36])
def test_what_a_repeated_round_has_cost_whom_is_in_the_tables(seed: int, tmp_path: Path) -> None:
    """Of clients too that are in its first attempt alone, since that took the rest of their share."""
    keys = [*KEYS, "rounds=null", "clients=6", "min_clients=3", "budget.base_epochs=2", "faults.crash=0.4"]
    keys += ["local_epochs=2", "partition.alpha=0.5", "dataset.train_limit=180", "network=lte", f"seed={seed}"]
    keys = [key for key in keys if key not in ("rounds=4", "partition=iid", "clients=4", "dataset.train_limit=120")]
    run = flsplit.run([*keys, f"out={tmp_path / 'run'}"])
    sent = ["samples", "uplink_bits", "downlink_bits", "sync_bits"]
    assert (run.rounds[sent].iloc[-1] == run.clients[sent].sum()).all()
    assert run.rounds.joules.iloc[-1] == pytest.approx(run.clients.joules.sum(), rel=1e-12)
    assert not run.clients.duplicated(["round", "client"]).any()
    spent = run.clients[run.clients.reason == "the round was repeated when its share of the budget was spent"]
    assert len(spent) > 0 and spent.failed.all() and (spent.samples > 0).all() and spent.train_loss.isna().all()
