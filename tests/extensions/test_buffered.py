"""A strategy that keeps state and time: clients report when they are done, and the server never waits for all."""

from __future__ import annotations

import json

import pytest
import torch
from extensions.conftest import Started
from safetensors.torch import load_file

from flsplit import cli
from flsplit.record.run import read_run

BUFFERED = ("--config-dir", "buffered/conf", "strategy=buffered", "clients=4")


def models(run) -> dict[str, torch.Tensor]:
    folder = run.path / "checkpoint"
    return load_file(folder / json.loads((folder / "state.json").read_text())["file"])


def test_clients_report_in_the_order_of_simulated_time(started: Started) -> None:
    """Four clients take 1, 2, 3 and 4 seconds; two reports make a step of the server."""
    run = started(*BUFFERED, "rounds=5")
    # Who has reported begins again when the server has stepped; of those that end together, who began first is first.
    assert run.rounds.simulated_seconds.tolist() == [2.0, 3.0, 4.0, 6.0, 7.0]
    seen = run.clients.groupby("round").client.apply(sorted).tolist()
    assert seen == [[0, 1], [0, 2], [1, 3], [0, 2], [0, 1]]
    assert run.rounds.train_loss.iloc[-1] < run.rounds.train_loss.iloc[0]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["persist", "reset"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(started: Started, state: str, tmp_path) -> None:
    whole = started(*BUFFERED, "rounds=6", f"optimizer_state={state}", out="whole")
    started(*BUFFERED, "rounds=3", f"optimizer_state={state}")
    assert cli.main(["--config-dir", "buffered/conf", f"resume={tmp_path}/run", "rounds=6"]) == 0
    resumed = read_run(tmp_path / "run")
    assert torch.equal(models(whole)["client.weights"], models(resumed)["client.weights"])
    assert torch.equal(models(whole)["server.weights"], models(resumed)["server.weights"])
    columns = [name for name in whole.rounds.columns if name != "seconds"]
    assert whole.rounds[columns].equals(resumed.rounds[columns])


@pytest.mark.slow
def test_with_a_full_buffer_and_equal_clients_it_is_splitfed(started: Started) -> None:
    """No client is stale and all are averaged: SplitFed V1."""
    even = ("rounds=1", "partition=iid")
    run = started(*BUFFERED, *even, "strategy.buffer=4", "strategy.slowest=1.0")
    plain = started("clients=4", *even, out="plain")
    for name in ("client.weights", "server.weights"):
        assert torch.allclose(models(run)[name], models(plain)[name], atol=1e-6)
