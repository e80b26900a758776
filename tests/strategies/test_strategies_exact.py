"""Strategies against plain PyTorch: the same weights to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
import torch
from reference import Setting

import flsplit
from flsplit.checkpoint import Checkpoints
from flsplit.streams import numpy_stream

COMPRESSORS = {
    "base": (),
    "adc": (("ratio", 0.3),),
    "topk": (("rate", 0.2),),
    "randtopk": (("rate", 0.2),),
    "c3sl": (("group", 4),),
    "bottlenet": (("ratio", 0.3),),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Bits depend on the threads; the engine gives clients one."""
    torch.set_num_threads(1)


def final(setting: Setting, out: Path, *more: str) -> tuple[torch.Tensor, torch.Tensor, flsplit.Run]:
    run = flsplit.run([*setting.overrides(out=out), "engine=inline", *more])
    state = Checkpoints(out / "checkpoint").load()
    assert state is not None
    return state.client_model.weights, state.server_model.weights, run


@pytest.mark.parametrize("strategy", ["splitfed_v1", "splitfed_v2"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_one_client_is_a_plain_training_loop(compressor: str, strategy: str, tmp_path: Path) -> None:
    setting = Setting(compressor=compressor, options=COMPRESSORS[compressor], rounds=3)
    client, server, run = final(setting, tmp_path / "run", f"strategy={strategy}")
    expected_client, expected_server, losses = reference.centralized(setting)
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)
    assert run.rounds.train_loss.tolist() == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("placement", ["replica", "central"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_v1_is_its_definition(compressor: str, placement: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor])
    client, server, _ = final(setting, tmp_path / "run", f"strategy.placement={placement}")
    expected_client, expected_server = reference.splitfed_v1(setting)
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)


@pytest.mark.parametrize("turn", ["round", "step"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_v2_is_its_definition(compressor: str, turn: str, tmp_path: Path) -> None:
    setting = Setting(clients=3, compressor=compressor, options=COMPRESSORS[compressor])
    client, server, _ = final(setting, tmp_path / "run", "strategy=splitfed_v2", f"strategy.turn={turn}")
    order = [numpy_stream(setting.seed, "turns", round).permutation(3).tolist() for round in (1, 2)]
    expected_client, expected_server = reference.splitfed_v2(setting, order, by_step=turn == "step")
    assert torch.equal(client, expected_client)
    assert torch.equal(server, expected_server)


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
    kept = {int(p.stem.split(".")[0]): int(p.stem.split(".")[1]) for p in (tmp_path / "run").rglob("clients/*.npy")}
    assert kept == last.to_dict()
