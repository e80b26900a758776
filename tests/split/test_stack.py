"""A stack's lanes are sides: loaded, trained and read the same, to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compressors import build
from flsplit.split.side import Side, SideState
from flsplit.split.stacked.stack import Stack, neighbours
from flsplit.split.stages import Stages

LR = 1e-2


def a_side(seed: int = 0, *, mu: float = 0.0, model: nn.Module | None = None) -> Side:
    torch.manual_seed(seed)
    model = model or nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    return Side(model, Stages(build("base")), lr=LR, device=torch.device("cpu"), proximal_mu=mu)


def batch(lane: int, step: int, size: int = 4) -> Tensor:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(10 * lane + step))


def loss(output: Tensor, lane: int) -> Tensor:
    return (output - lane).square().mean()


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_lanes_take_the_steps_of_sides(mu: float) -> None:
    """Three clients that start apart, one of them with moments, and take two, two and one step."""
    sides = [a_side(seed, mu=mu) for seed in range(3)]
    loss(sides[1].model(batch(1, 9)), 1).backward()
    sides[1].step()
    stack = Stack(a_side(7, mu=mu), 3)
    before = [side.state() for side in sides]
    for lane, (side, state) in enumerate(zip(sides, before)):
        side.anchor()
        stack.load(lane, state)
        stack.anchor(lane)
    for step, lanes in enumerate(([0, 1, 2], [0, 1])):
        [output] = stack(slice(0, len(lanes)), torch.stack([batch(lane, step) for lane in lanes]))
        torch.stack([loss(of_lane, lane) for lane, of_lane in zip(lanes, output)]).sum().backward()
        stack.step()
        for lane in lanes:
            loss(sides[lane].model(batch(lane, step)), lane).backward()
            sides[lane].step()
    for lane, side in enumerate(sides):
        ours, theirs = stack.lane(lane).state(), side.state()
        torch.testing.assert_close(ours.weights, theirs.weights, rtol=1e-5, atol=LR * 1e-3)
        assert (ours.weights - before[lane].weights).abs().mean() > LR / 4
        assert ours.moments is not None and theirs.moments is not None
        torch.testing.assert_close(ours.moments, theirs.moments, rtol=1e-4, atol=1e-6)
        assert ours.moments[-1] == [2, 3, 1][lane]


def test_a_state_comes_back_to_the_bit_and_forgets_moments_it_lacks() -> None:
    side, stack = a_side(), Stack(a_side(1), 2)
    loss(side.model(batch(0, 0)), 0).backward()
    side.step()
    lane, state = stack.lane(1), side.state()
    lane.load(state)
    back = lane.state()
    assert state.moments is not None and back.moments is not None
    assert torch.equal(back.weights, state.weights) and torch.equal(back.moments, state.moments)
    assert lane.state(moments=False).moments is None
    lane.load(SideState(state.weights))
    assert lane.state().moments is None
    kept = back.weights.clone()
    lane.load(a_side(5).state())
    assert torch.equal(back.weights, kept)  # a copy


def test_a_lane_does_not_depend_on_the_others() -> None:
    alone, crowded = Stack(a_side(), 3), Stack(a_side(), 3)
    for stack, seeds in ((alone, (1, 2, 3)), (crowded, (4, 2, 6))):
        for lane, seed in enumerate(seeds):
            stack.load(lane, a_side(seed).state())
        inputs = torch.stack([batch(seed, 0) for seed in seeds])
        [output] = stack(slice(0, 3), inputs)
        output.square().sum().backward()
        stack.step()
    assert torch.equal(alone.lane(1).state().weights, crowded.lane(1).state().weights)
    assert not torch.equal(alone.lane(0).state().weights, crowded.lane(0).state().weights)


def test_what_was_called_and_dropped_is_not_stepped() -> None:
    stack = Stack(a_side(), 1)
    stack.load(0, a_side().state())
    stack(slice(0, 1), batch(0, 0)[None])
    stack.forget()
    stack.step()
    assert torch.equal(stack.lane(0).state().weights, a_side().state().weights)


def test_neighbours_are_next_to_each_other_and_of_one_shape() -> None:
    tensors = [torch.zeros(size, 2) for size in (4, 4, 3, 4, 4)]
    found = [(lanes, members) for lanes, members in neighbours([0, 1, 2, 3, 5], tensors)]
    assert found == [
        (slice(0, 2), slice(0, 2)), (slice(2, 3), slice(2, 3)), (slice(3, 4), slice(3, 4)), (slice(5, 6), slice(4, 5)),
    ]  # fmt: skip


def test_what_cannot_be_stacked_is_refused() -> None:
    bottlenet = build("bottlenet", ratio=0.5).bind(tokens=2, width=4)
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="the compressor or a stage trains parameters of its own"):
        Stack(Side(model, Stages(bottlenet), halves=[bottlenet.client_half], lr=LR, device=torch.device("cpu")), 2)
    with pytest.raises(ValueError, match="has buffers"):
        Stack(a_side(model=nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))), 2)
    for more in ({"halves": [nn.BatchNorm1d(2, affine=False)]}, {"own": [nn.BatchNorm1d(2)]}):
        with pytest.raises(ValueError, match="has buffers"):
            Stack(Side(copy.deepcopy(model), Stages(build("base")), **more, lr=LR, device=torch.device("cpu")), 2)
    frozen = copy.deepcopy(model)
    frozen.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="not trained"):
        Stack(a_side(model=frozen), 2)
    with pytest.raises(ValueError, match="does not fit"):
        Stack(a_side(), 2).load(0, SideState(torch.zeros(3)))
