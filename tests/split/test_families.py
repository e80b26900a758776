"""timm's ResNets as a family: cut to the bit, statistics where they belong, and refusals before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import compressors
import flsplit
from flsplit import cli
from flsplit.split.model import build, cut
from flsplit.split.side import Side
from flsplit.split.stages import Stages
from flsplit.transport import vectors

SMALL = [
    "engine=inline", "model=timm", "model.name=resnet18", "model.image_size=32", "clients=2", "rounds=1",
    "dataset.train_limit=16", "dataset.test_limit=8", "batch_size=8", "partition=iid",
]  # fmt: skip


@pytest.mark.some
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("split_point", [1, 4, 7])
def test_client_then_server_is_the_uncut_resnet_to_the_bit(name: str, split_point: int) -> None:
    model = build(name, classes=7, image_size=32, pretrained=False, seed=1)
    images = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    client, server = cut(model, split_point, "resnet")
    z, scores = client(images)
    assert z.dim() == 3 and scores is None and not client.has_scores and client.prefix_tokens == 0
    parts, whole = server(z), model(images)
    assert torch.equal(parts, whole)
    whole.square().mean().backward()
    parts.square().mean().backward()
    expected = [p.grad for p in model.parameters()]
    found = [p.grad for part in (client, server) for p in part.parameters()]
    assert sorted(g.norm().item() for g in found) == pytest.approx(sorted(g.norm().item() for g in expected), rel=1e-4)
    statistics = [b for part in (client, server) for b in part.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.buffers(), strict=True))


@pytest.mark.parametrize("split_point", [0, 8])
def test_it_is_cut_between_blocks(split_point: int) -> None:
    with pytest.raises(ValueError, match=rf"between 1 and 7 for a model of 8 blocks, got {split_point}"):
        cut(timm.create_model("resnet18"), split_point, "resnet")


def models(run: flsplit.Run) -> dict[str, torch.Tensor]:
    folder = run.path / "checkpoint"
    return load_file(folder / json.loads((folder / "state.json").read_text())["file"])


def numbers(model: torch.nn.Module) -> tuple[int, int]:
    """Trained floats, and floating buffers."""
    return sum(p.numel() for p in model.parameters()), sum(b.numel() for b in model.buffers() if b.is_floating_point())


def test_average_statistics_travel_and_are_averaged(tmp_path: Path) -> None:
    run = flsplit.run([*SMALL, "compressor=topk", f"out={tmp_path}/run"])
    client, server = cut(build("resnet18", classes=10, image_size=32, pretrained=False, seed=0), 3, "resnet")
    trained, buffers = numbers(client)
    found = models(run)
    assert len(found["client.weights"]) == trained + buffers
    assert len(found["server.weights"]) == sum(numbers(server))
    assert set(run.clients.sync_bits) == {2 * 32 * (trained + buffers)}
    assert not list((tmp_path / "run").rglob("*.own.*.npy"))


@pytest.mark.slow
def test_personal_statistics_stay_with_their_client(tmp_path: Path) -> None:
    run = flsplit.run([*SMALL, "compressor=topk", "strategy.buffers=personal", f"out={tmp_path}/run"])
    client, server = cut(build("resnet18", classes=10, image_size=32, pretrained=False, seed=0), 3, "resnet")
    trained, buffers = numbers(client)
    found = models(run)
    assert len(found["client.weights"]) == trained
    assert len(found["server.weights"]) == sum(numbers(server))
    own = [vectors.read(str(path)) for path in sorted((tmp_path / "run").rglob("*.own.*.npy"))]
    assert [len(values) for values in own] == [buffers, buffers]
    assert not torch.equal(*own)
    assert set(run.clients.sync_bits) == {32 * (2 * trained + buffers)}  # a client's own come once


@pytest.mark.slow
@pytest.mark.parametrize("buffers", ["average", "personal"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(buffers: str, tmp_path: Path) -> None:
    keys = [*SMALL, "compressor=topk", f"strategy.buffers={buffers}"]
    whole = flsplit.run([*keys, "rounds=2", f"out={tmp_path}/whole"])
    flsplit.run([*keys, f"out={tmp_path}/run"])
    resumed = flsplit.run([f"resume={tmp_path}/run", "rounds=2"])
    assert all(torch.equal(a, b) for a, b in zip(models(whole).values(), models(resumed).values(), strict=True))
    assert whole.rounds.test_accuracy.equals(resumed.rounds.test_accuracy)
    assert whole.rounds.test_loss.equals(resumed.rounds.test_loss)


@pytest.mark.slow
@pytest.mark.parametrize("aggregator", ["fedadam", "fedavgm"])
def test_no_aggregator_takes_a_step_of_its_own_along_statistics(aggregator: str, tmp_path: Path) -> None:
    """Adam's step would make variances negative; statistics are the clients' mean whatever becomes of the weights."""
    run = flsplit.run([*SMALL, "compressor=topk", f"strategy.aggregator={aggregator}", f"out={tmp_path}/{aggregator}"])
    plain = flsplit.run([*SMALL, "compressor=topk", f"out={tmp_path}/plain"])
    trained = numbers(cut(build("resnet18", classes=10, image_size=32, pretrained=False, seed=0), 3, "resnet")[0])[0]
    assert torch.equal(models(run)["client.weights"][trained:], models(plain)["client.weights"][trained:])
    stepped = not torch.allclose(models(run)["client.weights"][:trained], models(plain)["client.weights"][:trained])
    assert stepped == (aggregator == "fedadam")  # the first step of a momentum is the mean


def test_what_is_trained_ends_where_statistics_begin() -> None:
    """Whatever room is left between tensors in memory: resnet10t has some."""
    client, _ = cut(build("resnet10t", classes=10, image_size=32, pretrained=False, seed=0), 3, "resnet")
    side = Side(client, Stages(compressors.build("topk")), lr=0.1, device=torch.device("cpu"))
    assert any(p.numel() % 16 for p in client.parameters())
    assert (side.trained, len(side.state().weights) - side.trained) == numbers(client)


@pytest.mark.slow
def test_a_frozen_client_side_stays_as_it_was_and_is_sent_once(tmp_path: Path) -> None:
    run = flsplit.run([*SMALL, "compressor=topk", "model.tune=frozen", "rounds=2", f"out={tmp_path}/run"])
    client, _ = cut(build("resnet18", classes=10, image_size=32, pretrained=False, seed=0), 3, "resnet")
    before, after = client.state_dict(), flsplit.trained(tmp_path / "run")[1].model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert models(run)["client.weights"].numel() == 0 and not run.clients.failed.any()
    assert run.clients.sync_bits.tolist() == [32 * sum(numbers(client))] * 2 + [0, 0]


@pytest.mark.slow
def test_fedbuff_takes_no_step_along_statistics(tmp_path: Path) -> None:
    keys = [
        "model.name=resnet10t", "clients=3", "dataset.train_limit=60", "compressor=base", "strategy=fedbuff",
        "network=wifi", "lr=1e-5", "strategy.server_lr=3", "rounds=3",
    ]  # fmt: skip
    run = flsplit.run([*SMALL, *keys, f"out={tmp_path}/run"])
    assert run.rounds.test_loss.notna().all() and not run.clients.failed.any()
    client, _ = cut(build("resnet10t", classes=10, image_size=32, pretrained=False, seed=0), 3, "resnet")
    trained, at = numbers(client)[0], 0
    moved = models(run)["client.weights"][trained:]
    for name, buffer in client.named_buffers():
        if buffer.is_floating_point():
            at += buffer.numel()
            if name.endswith("running_var"):
                assert (moved[at - buffer.numel() : at] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "compressor"),
    [
        ("splitfed_v1", "bottlenet"), ("splitfed_v2", "topk"), ("splitfed_v3", "bottlenet"), ("parallel", "topk"),
        ("sequential", "topk"), ("fedavg", "base"),
    ],
)  # fmt: skip
def test_all_strategies_train_one(strategy: str, compressor: str, tmp_path: Path) -> None:
    run = flsplit.run([*SMALL, f"strategy={strategy}", f"compressor={compressor}", f"out={tmp_path}/run"])
    assert run.clients.failed.tolist() == [False, False]


@pytest.mark.some
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "compressor=adc needs the attention of a class token, which resnet18 does not have"),
        (
            ["compressor=topk", "engine.stack=2"],
            "engine.stack must be 1: the model, the compressor or a stage has buffers",
        ),
        (
            ["compressor=topk", "strategy=parallel", "strategy.buffers=personal"],
            "strategy.buffers must be average for strategy=parallel as it is",
        ),
        (["strategy.buffers=mine"], "strategy.buffers must be average or personal, got 'mine'"),
        (["model.family=vit"], "not a Vision Transformer"),
        (["model.family=densenet"], "model.family must be one of resnet, vit, or the dotted path"),
        (["model.split_point=8"], "model.split_point must be between 1 and 7 for a model of 8 blocks, got 8"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    keys: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*SMALL, *keys, f"out={tmp_path}/run"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and says in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_timm_brings_no_wandb_which_can_be_imported_later() -> None:
    code = "import flsplit.split.model, sys; assert 'wandb' not in sys.modules; import wandb; wandb.init"
    subprocess.run([sys.executable, "-c", code], check=True)
