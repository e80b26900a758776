"""Passes that are replayed give the model's own numbers, and are not used where they would not.

CUDA graphs need a GPU. Here something else stands in for them that has their ways: one place for the input, the
outputs and every gradient, which the next pass writes over.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_end_to_end import same_numbers, small
from torch import Tensor, nn

import flsplit
from flsplit.assembly import Assembly
from flsplit.split import passes
from flsplit.split.passes import Captured, can_be_captured
from flsplit.split.side import Side


def recorded(model: nn.Module, x: Tensor) -> nn.Module:
    """What `passes.capture` makes, without a GPU."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    places: dict[str, Any] = {"in": x}

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, given: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                x.copy_(given)
            with torch.enable_grad():
                out = model(x)
            places["live"] = outputs = [t for t in (out if isinstance(out, tuple) else (out,)) if t is not None]
            places.setdefault("out", [t.detach().clone() for t in outputs])
            for place, value in zip(places["out"], outputs):
                place.copy_(value.detach())
            return tuple(place.detach() for place in places["out"])

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
            leaves = [leaf for leaf in (x, *parameters) if leaf.requires_grad]
            found = torch.autograd.grad(places["live"][0], leaves, gradients[0], allow_unused=True)
            places.setdefault("back", [None if t is None else t.clone() for t in found])
            for place, value in zip(places["back"], found):
                if place is not None:
                    place.copy_(value)
            back = iter(places["back"])
            return tuple(next(back) if leaf.requires_grad else None for leaf in (x, *parameters))

    class Replayed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, given: Tensor) -> Any:
            out = Replay.apply(given, *parameters)
            return out[0] if len(out) == 1 else out

    return Replayed()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[Captured]:
    """Sides that train are captured, as on a GPU; which ones."""
    made = list[Captured]()

    def fast(self: Assembly, side: Side) -> Side:
        if self.config.engine.graphs:
            side.capture()
            made.extend([side.passes] if isinstance(side.passes, Captured) else [])
        return side

    monkeypatch.setattr(Assembly, "_made_fast", fast)
    monkeypatch.setattr(passes, "capture", recorded)
    monkeypatch.setattr(passes, "OFTEN", 2)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        ["compressor=base"],
        ["compressor=adc", "compressor.ratio=0.3"],
        ["compressor=bottlenet", "strategy=splitfed_v2", "strategy.turn=step"],
        ["strategy=splitfed_v3", "model.tune=lora", "model.tune_server=last"],
        ["strategy=sequential", "compressor=topk", "model.tune=frozen"],
        ["strategy=parallel", "compressor=base"],
        ["strategy=parallel", "strategy.sync=round"],
        ["strategy=fedavg"],
        ["model.name=resnet18", "model=timm", "model.pretrained=false", "model.image_size=32", "compressor=topk"],
    ],
    ids=" ".join,
)
def test_replayed_passes_change_no_number(keys: list[str], gpu: list[Captured], tmp_path: Path) -> None:
    keys = ["engine=inline", "clients_per_round=2", "local_steps=4", *keys]
    plain = small(tmp_path / "plain", *keys, "engine.graphs=false")
    assert not gpu
    replayed = small(tmp_path / "replayed", *keys)
    same_numbers(plain.rounds, replayed.rounds)
    same_numbers(plain.clients, replayed.clients)
    assert any(found.captures for found in gpu) or "model.name=resnet18" in keys


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))


def test_a_shape_is_captured_when_it_has_come_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "capture", recorded)
    model = net()
    ours, plain = Captured(model), copy.deepcopy(model)
    for number in range(passes.OFTEN + 2):
        x = torch.randn(5, 3)
        out = ours(x)
        assert ours.captures == (2 * number + 1 >= passes.OFTEN)
        out.square().sum().backward()
        ours.done()
        plain(x).square().sum().backward()
        kept = out.clone()
        ours(torch.randn(5, 3))  # writes over what the pass before has left
        ours.done()
        assert torch.equal(out, kept)
    for a, b in zip(model.parameters(), plain.parameters()):
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
    ours(torch.randn(7, 3))
    assert ours.captures == 1


def test_two_passes_that_wait_for_their_way_back_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "capture", recorded)
    monkeypatch.setattr(passes, "OFTEN", 1)
    model = net()
    ours, plain = Captured(model), copy.deepcopy(model)
    ours(torch.zeros(5, 3))
    batches = [torch.randn(5, 3) for _ in range(3)]
    for called in (ours, plain):
        sum(called(x).square().sum() for x in batches).backward()
    for a, b in zip(model.parameters(), plain.parameters()):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["output", "gradient", "raises"])
def test_what_does_not_give_the_same_numbers_is_not_used(
    wrong: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def capture(model: nn.Module, x: Tensor) -> nn.Module:
        if wrong == "raises":
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        other = copy.deepcopy(model)
        with torch.no_grad():
            other[2].bias.add_(1e-6 if wrong == "output" else 0)  # type: ignore[index]
            other[0].weight.mul_(1)  # type: ignore[index]
        if wrong == "gradient":
            other[2].weight.register_hook(lambda gradient: gradient * 1.00001)  # type: ignore[index]
        return other

    monkeypatch.setattr(passes, "capture", capture)
    model = net()
    ours, x = Captured(model), torch.randn(5, 3)
    for _ in range(10 * passes.OFTEN):
        assert torch.equal(ours(x), model(x))
    assert ours.captures == 0
    said = "RuntimeError: operation not permitted" if wrong == "raises" else "replayed, it gives other numbers"
    assert len(caplog.messages) == passes.MOST and all(said in line and "\n" not in line for line in caplog.messages)


def test_models_that_a_pass_changes_or_nothing_trains_are_left_as_they_are() -> None:
    assert can_be_captured(net()) and not can_be_captured(net().requires_grad_(False))
    assert not can_be_captured(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))


def test_what_is_captured_trains_on_the_first_output_alone() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
            z = self.inner(x)
            return z, z.softmax(1), None

    first, second = passes._Door(Two())(torch.randn(2, 3))
    assert first.requires_grad and not second.requires_grad


@pytest.mark.slow
def test_the_key_is_free_when_a_run_is_resumed(tmp_path: Path) -> None:
    small(tmp_path / "run", "engine=inline", "rounds=1", "local_steps=1")
    resumed = flsplit.run([f"resume={tmp_path / 'run'}", "rounds=2", "engine.graphs=false"])
    assert resumed.summary["status"] == "completed" and resumed.summary["rounds"] == 2
