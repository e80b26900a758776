"""Ways to train a side of one's own: the last blocks, or two thin matrices in each block."""

from __future__ import annotations

import json

import pytest
from extensions.conftest import Started
from safetensors.torch import load_file

WIDTH, BLOCKS = 64, 3  # of the client side of vit_micro
BLOCK = 8 * WIDTH * WIDTH + 11 * WIDTH  # two norms, qkv, projection and both layers of the MLP, with biases
FLOAT = 32
LONGER = ("dataset.train_limit=400", "partition=iid", "rounds=4")


def moved(run) -> list[int]:
    """Bits of models that moved between the first client and the server, by round."""
    return run.clients[run.clients.client == 0].sync_bits.tolist()


def trained(run, side: str) -> int:
    """Floats of a side in the checkpoint."""
    folder = run.path / "checkpoint"
    return load_file(folder / json.loads((folder / "state.json").read_text())["file"])[f"{side}.weights"].numel()


def learns(run) -> bool:
    return run.rounds.train_loss.iloc[1:].min() < run.rounds.train_loss.iloc[0]


@pytest.mark.slow
def test_only_the_last_block_travels(started: Started) -> None:
    whole = started(*LONGER, out="whole")
    run = started("model.tune=tuned.last_blocks", "model.tune_args.blocks=1", *LONGER)
    assert trained(run, "client") == BLOCK
    assert trained(run, "server") == trained(whole, "server")
    all_of_it, once = trained(whole, "client"), trained(whole, "client") - BLOCK
    assert moved(whole) == [2 * FLOAT * all_of_it] * 4
    assert moved(run) == [FLOAT * (once + 2 * BLOCK)] + [FLOAT * 2 * BLOCK] * 3
    assert run.summary["downlink_bits"] == whole.summary["downlink_bits"]
    assert learns(run)


@pytest.mark.slow
def test_two_matrices_in_each_block_travel(started: Started) -> None:
    run = started("model.tune=tuned.low_rank", "model.tune_args.rank=2", "lr=0.01", *LONGER)
    matrices = BLOCKS * (WIDTH * 2 + 2 * 3 * WIDTH)
    assert trained(run, "client") == matrices
    assert moved(run)[1] == FLOAT * 2 * matrices
    assert learns(run)


@pytest.mark.slow
def test_the_server_side_too(started: Started) -> None:
    run = started("model.tune_server=tuned.low_rank", "model.tune_server_args.rank=2", "strategy=splitfed_v2")
    assert trained(run, "server") < 6 * (WIDTH * 2 + 2 * 3 * WIDTH) + 1


@pytest.mark.slow
def test_a_frozen_client_needs_no_downlink(started: Started) -> None:
    base = ("compressor=base", *LONGER)
    whole, run = started(*base, out="whole"), started(*base, "model.tune=frozen")
    assert run.summary["downlink_bits"] == 0
    assert run.summary["uplink_bits"] == whole.summary["uplink_bits"]
    assert moved(run) == [moved(whole)[0] // 2, 0, 0, 0]
    assert run.summary["xi"] == 1.0
    assert learns(run)


@pytest.mark.slow
def test_nothing_to_train_is_refused(capsys, tmp_path) -> None:
    from flsplit import cli

    assert cli.main(["model.tune=frozen", "model.tune_server=frozen", f"out={tmp_path}/run"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("flsplit: model.tune and model.tune_server leave nothing to train")
    assert cli.main(["model.tune=tuned.last_blocks", "model.tune_args.blocks=9", f"out={tmp_path}/run"]) == 2
    assert "blocks must be at most" in capsys.readouterr().err
