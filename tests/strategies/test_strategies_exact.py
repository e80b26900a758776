"""Strategies against plain PyTorch: the same weights to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from reference import Setting

import flsplit
from flsplit.server.checkpoint import Checkpoints
from flsplit.streams import numpy_stream

COMPRESSORS = {
    "base": (),
    "adc": (("ratio", 0.3),),
    "topk": (("rate", 0.2),),
    "randtopk": (("rate", 0.2),),
    "c3sl": (("group", 4),),
    "bottlenet": (("ratio", 0.3),),
}
# One client, and V1, are held to their definition with each of them. The other strategies do not care which one it is,
# unless it regroups the samples, has halves that travel, or draws: these are `TELLING`.
SOME = [
    pytest.param(name, marks=[] if name in ("adc", "bottlenet") else pytest.mark.slow, id=name) for name in COMPRESSORS
]
TELLING = [some for some in SOME if some.id in ("adc", "bottlenet", "randtopk")]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Bits depend on the threads; the engine gives clients one."""
    torch.set_num_threads(1)


def final(setting: Setting, out: Path, *more: str) -> tuple[torch.Tensor, torch.Tensor, flsplit.Run]:
    run = flsplit.run([*setting.overrides(out=out), "engine=inline", *more])
    state = Checkpoints(out / "checkpoint").load()
    assert state is not None
    return state.client_model.weights, state.server_model.weights, run


@pytest.mark.some
@pytest.mark.parametrize(
    "strategy", ["splitfed_v1", "splitfed_v2", "splitfed_v3", "sequential", "parallel", "centralized"]
)
@pytest.mark.parametrize("compressor", SOME)
def test_one_client_is_a_plain_training_loop(compressor: str, strategy: str, tmp_path: Path) -> None:
    setting = Setting(compressor=compressor, options=COMPRESSORS[compressor], rounds=3)
    client, server, run = final(setting, tmp_path / "run", f"strategy={strategy}")
    expected_client, expected_server, losses = reference.centralized(setting)
    if strategy == "splitfed_v3":  # the client keeps its model
        [client] = own_models(tmp_path / "run")
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)
    assert run.rounds.train_loss.tolist() == pytest.approx(losses, rel=1e-6)


def own_models(out: Path) -> list[torch.Tensor]:
    """The client-side models that clients keep."""
    state = Checkpoints(out / "checkpoint").load()
    assert state is not None
    return [torch.from_numpy(np.load(state.kept[client]["weights"])) for client in sorted(state.kept)]


@pytest.mark.some
@pytest.mark.parametrize("placement", ["replica", "central"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_v1_is_its_definition(compressor: str, placement: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor])
    client, server, _ = final(setting, tmp_path / "run", f"strategy.placement={placement}")
    expected_client, expected_server = reference.splitfed_v1(setting)
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["adc", "bottlenet"])
def test_fedbuff_is_its_definition(compressor: str, tmp_path: Path) -> None:
    """Of four clients, two at a time; who reports when is asked of the run, which the tests of time look at."""
    setting = Setting(clients=4, rounds=6, limit=100, alpha=1e9, compressor=compressor, options=COMPRESSORS[compressor])
    keys = ["network=lte", "network.uplink_mbps=[0.5,20]", "strategy.server_lr=0.7", "strategy.staleness_power=0.5"]
    client, server, run = final(setting, tmp_path / "run", "strategy=fedbuff", "strategy.buffer=2", *keys)
    order = [group.client.tolist() for _, group in run.clients.groupby("round")]
    assert len({tuple(done) for done in order}) > 1
    expected_client, expected_server = reference.fedbuff(setting, order, rate=0.7, power=0.5)
    torch.testing.assert_close(client, expected_client, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(server, expected_server, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("compressor", [some for some in SOME if some.id != "bottlenet"])
def test_stacked_clients_are_v1_to_rounding(compressor: str, tmp_path: Path) -> None:
    """Five clients of unequal size, so that some drop out of a stack before the others and last batches are odd."""
    setting = Setting(clients=5, limit=100, compressor=compressor, options=COMPRESSORS[compressor])
    client, server, run = final(setting, tmp_path / "run", "engine.stack=3")
    _, _, single = final(setting, tmp_path / "single")
    same = [c for c in run.clients if c not in ("train_loss", "test_accuracy")]
    pd.testing.assert_frame_equal(run.clients[same], single.clients[same])
    assert run.clients.train_loss.tolist() == pytest.approx(single.clients.train_loss.tolist(), rel=1e-4)
    expected_client, expected_server = reference.splitfed_v1(setting)
    assert (client - expected_client).abs().mean() < setting.lr / 100
    assert (server - expected_server).abs().mean() < setting.lr / 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        ["strategy=splitfed_v3"],
        ["strategy=splitfed_v3", "strategy.aggregator=fedprox", "strategy.aggregator_args.proximal_mu=5"],
        ["strategy=fedavg"],
        ["strategy.aggregator=fedprox", "strategy.aggregator_args.proximal_mu=0.5"],
        ["optimizer_state=reset", "clients_per_round=2"],
        ["budget.base_epochs=1", "rounds=null", "partition.holdout=0.2"],
    ],
    ids=" ".join,
)
def test_stacked_clients_are_single_ones_to_rounding(keys: list[str], tmp_path: Path) -> None:
    setting = Setting(clients=3)
    *models, stacked = final(setting, tmp_path / "stacked", "engine.stack=2", *keys)
    *expected, single = final(setting, tmp_path / "single", *keys)
    assert stacked.rounds.train_loss.tolist() == pytest.approx(single.rounds.train_loss.tolist(), rel=1e-4)
    assert stacked.rounds.uplink_bits.tolist() == single.rounds.uplink_bits.tolist()
    for ours, theirs in zip(models, expected):
        assert (ours - theirs).abs().mean() < setting.lr / 100


@pytest.mark.some
@pytest.mark.parametrize("placement", ["replica", "central"])
@pytest.mark.parametrize("compressor", [some for some in SOME if some.id in ("base", "adc", "bottlenet")])
def test_fedprox_pulls_both_sides_to_where_the_round_began(compressor: str, placement: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor])
    prox = ["strategy.aggregator=fedprox", "strategy.aggregator_args.proximal_mu=0.5"]
    client, server, _ = final(setting, tmp_path / "run", *prox, f"strategy.placement={placement}")
    expected_client, expected_server = reference.splitfed_v1(setting, mu=0.5)
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)
    assert not torch.equal(client, reference.splitfed_v1(setting)[0])


@pytest.mark.some
@pytest.mark.parametrize("turn", ["round", "step"])
@pytest.mark.parametrize("compressor", TELLING)
def test_v2_is_its_definition(compressor: str, turn: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor])
    client, server, _ = final(setting, tmp_path / "run", "strategy=splitfed_v2", f"strategy.turn={turn}")
    order = [numpy_stream(setting.seed, "turns", round).permutation(3).tolist() for round in (1, 2)]
    expected_client, expected_server = reference.splitfed_v2(setting, order, by_step=turn == "step")
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["replica", "central"])
@pytest.mark.parametrize("compressor", TELLING)
def test_v3_is_its_definition(compressor: str, placement: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor])
    keys = ["strategy=splitfed_v3", f"strategy.placement={placement}"]
    client, server, run = final(setting, tmp_path / "run", *keys)
    expected_clients, expected_server = reference.splitfed_v3(setting)
    found = own_models(tmp_path / "run")
    assert len(found) == 3 and all(torch.equal(a, b) for a, b in zip(found, expected_clients))
    assert torch.equal(server, expected_server)
    assert run.clients.sync_bits.tolist() == [32 * len(client)] * 3 + [0] * 3  # the first broadcast, and no more


@pytest.mark.some
@pytest.mark.parametrize("compressor", TELLING)
def test_sequential_is_its_definition(compressor: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor])
    client, server, run = final(setting, tmp_path / "run", "strategy=sequential")
    order = [numpy_stream(setting.seed, "turns", round).permutation(3).tolist() for round in (1, 2)]
    expected_client, expected_server = reference.sequential(setting, order)
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)
    assert (run.clients.sync_bits == 2 * 32 * len(client)).all()


@pytest.mark.some
@pytest.mark.parametrize("sync", ["gradient", "round"])
@pytest.mark.parametrize("compressor", TELLING)
def test_parallel_is_its_definition(compressor: str, sync: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor])
    client, server, run = final(setting, tmp_path / "run", "strategy=parallel", f"strategy.sync={sync}")
    expected_client, expected_server = reference.parallel(setting, by_gradient=sync == "gradient")
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)
    data = reference.Data(setting)
    group = 4 if compressor == "c3sl" else 1
    steps = [len(list(data.batches(c, 1, group))) for c in range(3)] * 2
    moved = [1 + 2 * n if sync == "gradient" else 2 for n in steps]
    assert run.clients.sync_bits.tolist() == [count * 32 * len(client) for count in moved]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "compressor"),
    [*product(["parallel", "splitfed_v1"], ["adc", "base"]), ("fedavg", "base")],
)
def test_logits_are_adjusted_to_what_labels_a_client_has(strategy: str, compressor: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor], alpha=0.3, tau=1.5)
    client, server, run = final(setting, tmp_path / "run", f"strategy={strategy}")
    of = partial(reference.parallel, by_gradient=True) if strategy == "parallel" else reference.splitfed_v1
    expected_client, expected_server = of(setting)
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)
    assert not torch.equal(server, of(replace(setting, tau=0.0))[1])
    first, second = (run.clients[run.clients["round"] == number].sync_bits.to_numpy() for number in (1, 2))
    told = 0 if strategy == "fedavg" else 32 * 10  # a client's counts, when it first takes part
    assert (first - second == told).all() or strategy == "parallel"


@pytest.mark.slow
def test_stacked_clients_have_their_own_adjustment(tmp_path: Path) -> None:
    setting = Setting(clients=3, alpha=0.3, tau=1.0)
    *models, stacked = final(setting, tmp_path / "stacked", "engine.stack=2")
    *expected, single = final(setting, tmp_path / "single")
    assert stacked.rounds.train_loss.tolist() == pytest.approx(single.rounds.train_loss.tolist(), rel=1e-4)
    for ours, theirs in zip(models, expected):
        assert (ours - theirs).abs().mean() < setting.lr / 100


@pytest.mark.slow
def test_fedavg_is_v1_without_a_link(tmp_path: Path) -> None:
    setting = Setting(clients=3)
    client, server, run = final(setting, tmp_path / "run", "strategy=fedavg")
    expected_client, expected_server = reference.splitfed_v1(setting)
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)
    assert (run.clients.sync_bits == 2 * 32 * (len(client) + len(server))).all()
    bits = ["uplink_bits", "downlink_bits", "nominal_bits", "wire_bytes"]
    assert (run.rounds[bits] == 0).all().all() and run.rounds.xi.isna().all() and run.summary["xi"] is None


@pytest.mark.slow
def test_k_clients_in_parallel_are_one_with_k_times_the_batch(tmp_path: Path) -> None:
    """Where the batches coincide: every client's whole part is one batch, the single client's batch is all of them."""
    keys = ["rounds=4", "partition.alpha=inf"]
    many = final(Setting(clients=3, limit=60, batch_size=20), tmp_path / "many", *keys, "strategy=parallel")[2]
    one = final(Setting(limit=60, batch_size=60), tmp_path / "one", *keys)[2]
    np.testing.assert_allclose(many.rounds.train_loss, one.rounds.train_loss, rtol=1e-4)
    np.testing.assert_allclose(many.rounds.test_loss, one.rounds.test_loss, rtol=1e-4)


@pytest.mark.slow
def test_centralized_leaves_clients_and_partition_aside(tmp_path: Path) -> None:
    keys = ["strategy=centralized", "clients_per_round=2"]
    client, server, run = final(Setting(clients=4), tmp_path / "run", *keys)
    expected_client, expected_server, _ = reference.centralized(Setting())
    assert torch.equal(client, expected_client) and torch.equal(server, expected_server)
    assert run.clients.client.tolist() == [0, 0] and (run.clients.sync_bits == 0).all()


@pytest.mark.slow
def test_a_persistent_optimizer_is_not_a_reset_one(tmp_path: Path) -> None:
    setting = Setting(clients=2)
    kept = final(setting, tmp_path / "kept")[0]
    reset = final(setting, tmp_path / "reset", "optimizer_state=reset")[0]
    assert not torch.equal(kept, reset)


def test_who_is_left_out_of_a_round_keeps_its_moments(tmp_path: Path) -> None:
    setting = Setting(clients=4, rounds=4)
    _, _, run = final(setting, tmp_path / "run", "clients_per_round=2")
    assert run.clients.groupby("round").client.nunique().tolist() == [2, 2, 2, 2]
    last = run.clients.groupby("client")["round"].max()
    named = json.loads((tmp_path / "run" / "checkpoint" / "state.json").read_text())["kept"]
    found = {client: files["moments"].rsplit(".", 2)[0] for client, files in named.items()}
    assert found == {str(client): f"{client}.{number}.moments" for client, number in last.items()}
    assert {files["moments"] for files in named.values()} <= {
        path.name for path in (tmp_path / "run").rglob("clients/*.npy")
    }
