"""A strategy that keeps state and time: clients report when they are done, and the server never waits for all."""

from __future__ import annotations

import pytest
import torch
from extensions.conftest import Started
from safetensors.torch import load_file

FEDBUFF = ("--config-dir", "fedbuff/conf", "strategy=fedbuff", "clients=4")


def models(run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "checkpoint" / f"models-{len(run.rounds) % 2}.safetensors")


def test_clients_report_in_the_order_of_simulated_time(started: Started) -> None:
    """Four clients take 1, 2, 3 and 4 seconds; two reports make a step of the server."""
    run = started(*FEDBUFF, "rounds=5")
    # Done at 1, 2 | 3 (client 0, begun at 2), 3 (client 2) | 4 (0), 4 (1) or 4 (3) | ...
    assert run.rounds.simulated_seconds.tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]
    seen = run.clients.groupby("round").client.apply(sorted).tolist()
    assert seen == [[0, 1], [0, 2], [0, 1], [0, 3], [0, 1]]
    assert run.rounds.train_loss.iloc[-1] < run.rounds.train_loss.iloc[0]


@pytest.mark.parametrize("state", ["persist", "reset"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(started: Started, state: str, tmp_path) -> None:
    whole = started(*FEDBUFF, "rounds=6", f"optimizer_state={state}", out="whole")
    started(*FEDBUFF, "rounds=3", f"optimizer_state={state}")
    resumed = started("--config-dir", "fedbuff/conf", f"resume={tmp_path}/run", "rounds=6")
    assert torch.equal(models(whole)["client.weights"], models(resumed)["client.weights"])
    assert torch.equal(models(whole)["server.weights"], models(resumed)["server.weights"])
    columns = [name for name in whole.rounds.columns if name != "seconds"]
    assert whole.rounds[columns].equals(resumed.rounds[columns])


def test_with_a_full_buffer_and_equal_clients_it_is_splitfed(started: Started) -> None:
    """No client is stale and all are averaged: SplitFed V1 with plain, equal weights."""
    run = started(*FEDBUFF, "strategy.buffer=4", "strategy.slowest=1.0", "optimizer_state=reset")
    plain = started("clients=4", "optimizer_state=reset", out="plain")
    for name in ("client.weights", "server.weights"):
        assert torch.allclose(models(run)[name], models(plain)[name], atol=1e-6)
