"""What each way to train a side marks, and that LoRA is peft's own training to the bit."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import flsplit
from experiments.bench.workload import LR, Workload
from flsplit.split.model import build, cut
from flsplit.split.tuning.interface import build as tuning
from flsplit.streams import derived_seed

TINY = Workload(model="vit_micro", size=16, pixels=16, batch=8, steps=3)


def sides(family: str = "vit_micro") -> tuple[nn.Module, nn.Module]:
    kind = "resnet" if family == "resnet10t" else "vit"
    model = build(family, classes=10, image_size=32, pretrained=False, seed=0, family=kind)
    return cut(model, 3, kind)


def trained(model: nn.Module) -> set[str]:
    return {name.removeprefix("vit.") for name, parameter in model.named_parameters() if parameter.requires_grad}


HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["bias", "norm"])
def test_kinds_of_parameters(name: str) -> None:
    for model, head in zip(sides(), (set(), HEAD)):
        everything = trained(model)
        tuning(name).apply(model)
        kind = {"bias": {n for n in everything if n.endswith("bias")}, "norm": {n for n in everything if "norm" in n}}
        assert trained(model) == kind[name] | head and len(kind[name]) > 3


def test_norm_of_a_model_with_batch_normalisation() -> None:
    client, server = sides("resnet10t")
    tuning("norm").apply(client)
    tuning("norm").apply(server)
    kinds = {name: type(module) for name, module in client.named_modules()}
    assert len(trained(client)) == 2 * sum(kind.__name__.startswith("BatchNorm") for kind in kinds.values())
    assert all(kinds[name.rpartition(".")[0]].__name__.startswith("BatchNorm") for name in trained(client))
    assert trained(server) >= HEAD


def test_the_head_alone() -> None:
    client, server = sides()
    tuning("head").apply(server)
    assert trained(server) == HEAD
    with pytest.raises(ValueError, match=r"model\.tune=head: a client side has no head"):
        tuning("head").apply(client)


def test_last_blocks_and_what_comes_after_them() -> None:
    client, server = sides()
    everything = trained(client), trained(server)
    tuning("last", blocks=2).apply(client)
    tuning("last").apply(server)
    assert trained(client) == {n for n in everything[0] if n.startswith(("blocks.1.", "blocks.2."))}
    assert trained(server) == {n for n in everything[1] if not n.startswith("blocks") or n.startswith("blocks.5.")}
    assert {"norm.weight", "head.bias"} < trained(server)
    with pytest.raises(ValueError, match=r"model\.tune_args\.blocks must be at most 3, the blocks of this side, got 4"):
        tuning("last", blocks=4).apply(client)
    with pytest.raises(ValueError, match=r"model\.tune_args\.blocks must be at least 1, got 0"):
        tuning("last", blocks=0)


def test_lora_adds_two_matrices_and_changes_nothing_at_first() -> None:
    client, server = sides()
    images = torch.randn(2, 3, 32, 32)
    before = client.eval()(images)[0]
    tuning("lora", rank=4, targets=["qkv", "fc1"]).apply(client)
    assert torch.equal(client.eval()(images)[0], before)
    assert all(n.endswith(("lora_A.default.weight", "lora_B.default.weight")) for n in trained(client))
    assert len(trained(client)) == 3 * 2 * 2
    tuning("lora", rank=4).apply(server)
    assert trained(server) > HEAD and all("lora" in n or n in HEAD for n in trained(server))


@pytest.mark.parametrize(("options", "line"), [
    ({"rank": 0}, r"model\.tune_args\.rank must be at least 1, got 0"),
    ({"rank": 64}, r"model\.tune_args\.rank must be less than 64, the width of vit\.blocks\.0\.attn\.qkv, got 64"),
    ({"alpha": -1.0}, r"model\.tune_args\.alpha must be a number above 0, got -1"),
    ({"targets": ["query"]}, r"targets must name linear layers of the model \(fc1, fc2, proj, qkv\), got query"),
    ({"targets": []}, r"targets must name linear layers, such as \[qkv\], got none"),
    ({"targets": "query"}, r"targets must name linear layers of the model \(fc1, fc2, proj, qkv\), got query$"),
    ({"ranks": 1}, r"ranks"),
])  # fmt: skip
def test_what_cannot_be_lora(options: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        tuning("lora", **options).apply(sides()[0])


def test_lora_is_a_plain_loop_with_peft_to_the_bit() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    with TINY.made() as made:
        run = flsplit.run(made.keys(model__tune="lora", model__tune_args="{rank: 2, alpha: 3}"))
        client, server = cut(made.vit(), 3)
        torch.manual_seed(derived_seed(0, "tune", "client"))
        inject_adapter_in_model(LoraConfig(r=2, lora_alpha=3, target_modules=["qkv"], lora_dropout=0.0), client)
        client.train()
        weights = [p for p in [*client.parameters(), *server.parameters()] if p.requires_grad]
        adam = torch.optim.Adam(weights, lr=LR)
        for images, labels in made.batches():
            adam.zero_grad()
            F.cross_entropy(server(client(images)[0]), labels).backward()
            adam.step()
        folder = run.path / "checkpoint"
        found = load_file(folder / json.loads((folder / "state.json").read_text())["file"])
    mine = [p for p in client.parameters() if p.requires_grad]
    assert sum(p.numel() for p in mine) == 3 * (2 * 64 + 2 * 192) == found["client.weights"].numel()
    assert torch.equal(found["client.weights"], torch.cat([p.detach().flatten() for p in mine]))
    assert torch.equal(found["server.weights"], torch.cat([p.detach().flatten() for p in server.parameters()]))
    assert run.clients.sync_bits.sum() == 32 * (2 * found["client.weights"].numel() + sum(
        p.numel() for p in client.parameters() if not p.requires_grad
    ))  # fmt: skip
