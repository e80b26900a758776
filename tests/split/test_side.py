"""A side at rest: what is saved comes back, moments included."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compressors import build
from flsplit.split.side import Side, SideState


def a_side(seed: int = 0) -> Side:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    compressor = build("bottlenet", ratio=0.5).bind(tokens=2, width=4, generator=torch.Generator().manual_seed(seed))
    return Side(model, compressor, compressor.client_half, lr=1e-2, device=torch.device("cpu"))


def take_steps(side: Side, count: int) -> None:
    for number in range(count):
        x = torch.full((4, 3), 0.1 * (number + 1))
        half = side.compressor.client_half
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
    half = side.compressor.client_half
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


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        a_side().load(SideState(torch.zeros(3)))
