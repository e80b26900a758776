"""A side at rest: what is saved comes back, moments included."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from compressors import build
from flsplit.split import side as side_module
from flsplit.split.side import BETAS, EPS, Side, SideState
from flsplit.split.stages import Stages


def a_side(seed: int = 0) -> Side:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    compressor = build("bottlenet", ratio=0.5).bind(tokens=2, width=4, generator=torch.Generator().manual_seed(seed))
    stages = Stages(compressor)
    return Side(model, stages, halves=stages.halves("client"), lr=1e-2, device=torch.device("cpu"))


def take_steps(side: Side, count: int) -> None:
    for number in range(count):
        x = torch.full((4, 3), 0.1 * (number + 1))
        half = side.stages.compressor.client_half
        assert half is not None
        (side.model(x).square().sum() + half(torch.ones(1, 2, 4)).sum()).backward()
        side.step()


def test_a_state_continues_where_it_was_taken_to_the_bit() -> None:
    original, other = a_side(), a_side(1)
    take_steps(original, 3)
    take_steps(other, 2)
    other.load(original.state())
    take_steps(original, 2)
    take_steps(other, 2)
    assert torch.equal(original.state().weights, other.state().weights)
    moments = original.state().moments, other.state().moments
    assert moments[0] is not None and moments[1] is not None and torch.equal(*moments)


def test_a_state_is_a_copy() -> None:
    side = a_side()
    before = side.state()
    kept = copy.deepcopy(before.weights)
    take_steps(side, 1)
    assert torch.equal(before.weights, kept) and not torch.equal(side.state().weights, kept)


def test_the_compressors_half_travels_with_the_model() -> None:
    side = a_side()
    half = side.stages.compressor.client_half
    assert half is not None
    assert side.size == sum(p.numel() for p in side.model.parameters()) + sum(p.numel() for p in half.parameters())
    assert side.state().weights.shape == (side.size,)


def test_without_moments_adam_starts_afresh() -> None:
    fresh, reset = a_side(), a_side()
    weights = fresh.state().weights
    assert fresh.state().moments is None
    take_steps(reset, 3)
    assert reset.state().moments is not None and reset.state(moments=False).moments is None
    reset.load(SideState(weights))
    take_steps(fresh, 1)
    take_steps(reset, 1)
    assert torch.equal(fresh.state().weights, reset.state().weights)


class Odd(nn.Module):
    """A frozen parameter between trained ones, a floating buffer that moves, an integer one; no size is round."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 33)
        self.frozen = nn.Parameter(torch.randn(33), requires_grad=False)
        self.norm = nn.BatchNorm1d(33)
        self.last = nn.Linear(33, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x) * self.frozen))


@pytest.mark.parametrize("mu", [0.0, 0.5])
@pytest.mark.parametrize("piece", [1, 50, 1 << 17])
def test_pieces_of_memory_are_stepped_as_parameters_are_to_the_bit(
    mu: float, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_module, "_PIECE", piece)
    torch.manual_seed(3)
    model = Odd()
    plain, inputs = copy.deepcopy(model), torch.randn(6, 9, 7)
    side = Side(model, Stages(build("base")), lr=1e-2, device=torch.device("cpu"), proximal_mu=mu)
    side.anchor()
    trained = [p for p in plain.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in trained]
    adam = torch.optim.Adam(trained, lr=1e-2, betas=BETAS, eps=EPS)
    for x in inputs:
        side.model(x).square().mean().backward()
        side.step()
        adam.zero_grad()
        plain(x).square().mean().backward()
        for p, from_there in zip(trained, start):
            if mu:
                assert p.grad is not None
                p.grad += mu * (p.detach() - from_there)
        adam.step()
    expected, found = plain.state_dict(), model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    travels = [t for name, t in expected.items() if t.is_floating_point() and name != "frozen"]
    assert side.size == sum(t.numel() for t in travels) and side.stays == 33


def test_what_a_failed_client_has_left_of_a_gradient_is_forgotten() -> None:
    fresh, used = a_side(), a_side()
    start = fresh.state()
    used.model(torch.ones(4, 3)).sum().backward()  # and then the way back broke off
    used.load(start)
    take_steps(fresh, 1)
    take_steps(used, 1)
    assert torch.equal(fresh.state().weights, used.state().weights)


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        a_side().load(SideState(torch.zeros(3)))


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([], True),
        ([1.0, -2.0], True),
        ([3e38, 3e38, -1.0], True),  # their sum is not
        ([1.0, math.nan], False),
        ([math.inf, -math.inf], False),
        ([-math.inf, 0.0], False),
    ],
)
def test_is_finite_looks_at_every_value(values: list[float], finite: bool) -> None:
    assert side_module.is_finite(torch.tensor(values)) is finite
