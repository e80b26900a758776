"""SplitFC's dropout: which features are kept, how often, and that what arrives is right in the mean."""

from __future__ import annotations

import math

import pytest
import torch

from compressors import BatchShape, build, build_stage
from compressors.splitfc import keep_probabilities, systematic

SHAPE = BatchShape(batch=16, tokens=5, width=8, classes=10)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.05, 3, 40).view(5, 8)
    return (torch.randn(16, 5, 8, generator=stream) * spread + 1).requires_grad_(), torch.arange(16) % 10


def reference(deviations: list[float], count: int) -> list[float]:
    """c by bisection: the sum of min(1, c deviation) grows with it."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(min(1.0, middle * d) for d in deviations) < count else (low, middle)
    return [min(1.0, high * d) for d in deviations]


@pytest.mark.parametrize("count", [1, 3, 10, 37, 40])
@pytest.mark.parametrize("seed", range(3))
def test_probabilities_are_proportional_and_at_most_one(count: int, seed: int) -> None:
    deviations = torch.rand(40, generator=torch.Generator().manual_seed(seed)) ** 4 + 1e-4
    found = keep_probabilities(deviations, count)
    assert found.tolist() == pytest.approx(reference(deviations.double().tolist(), count), rel=1e-6)
    assert float(found.sum()) == pytest.approx(count)


def test_features_that_do_not_vary_are_kept_only_where_too_few_do() -> None:
    deviations = torch.tensor([0.0, 2.0, 0.0, 1.0])
    assert keep_probabilities(deviations, 2).tolist() == [0, 1, 0, 1]
    found = keep_probabilities(deviations, 3)
    assert found[1] == found[3] == 1 and float(found.sum()) == pytest.approx(3)
    assert keep_probabilities(torch.zeros(4), 1).tolist() == pytest.approx([0.25] * 4)


def test_each_feature_is_kept_with_its_probability_and_always_as_many() -> None:
    chance = keep_probabilities(torch.linspace(0.1, 2, 40), 7)
    kept = torch.zeros(40)
    for offset in torch.linspace(0, 1, 2001)[:-1].tolist():
        places = systematic(chance, 7, offset)
        assert len(places) == 7 == len(places.unique()) and torch.equal(places, places.sort().values)
        kept[places] += 1 / 2000
    torch.testing.assert_close(kept, chance.float(), rtol=0, atol=2e-3)


@pytest.mark.slow
def test_what_arrives_is_right_in_the_mean() -> None:
    z, y = batch()
    made, mean = build("splitfc", rate=0.2), torch.zeros(16, 5, 8)
    offsets = torch.linspace(0, 1, 4001)[:-1].tolist()
    for offset in offsets:
        mean += made.decompress(made.compress(z, y, None, offset=offset), SHAPE)[0].detach() / len(offsets)
    torch.testing.assert_close(mean, z.detach(), rtol=0.1, atol=0.05)


def test_gradients_come_back_for_what_was_kept_and_for_nothing_else() -> None:
    z, y = batch()
    made = build("splitfc", rate=0.2)
    payload = made.compress(z, y, None, generator=torch.Generator().manual_seed(5))
    places, chance = payload.integers[0], keep_probabilities(z.detach().flatten(1).std(0, correction=0), 8)
    received, targets = made.decompress(payload, SHAPE)
    weights = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(6))
    (weights * received).sum().backward()
    expected = torch.zeros(16, 40)
    expected[:, places] = weights.flatten(1)[:, places] / chance[places].float()
    assert z.grad is not None and torch.equal(targets, y)
    torch.testing.assert_close(z.grad.flatten(1), expected)


def test_the_price_has_positions_once() -> None:
    layout = build("splitfc", rate=0.2).layout(SHAPE)
    assert layout.uplink_bits == 16 * 8 * 32 + 8 * 6 + 16 * 4 and layout.downlink_bits == 16 * 8 * 32
    up, down = build("splitfc", rate=0.2).nominal_ratios(SHAPE)
    assert (up, down) == (pytest.approx(0.2 * (1 + 6 / (32 * 16))), 0.2)


def test_with_a_quantiser_it_is_feature_by_feature() -> None:
    z, y = batch()
    made = build("splitfc", rate=0.2)
    layout = made.layout(SHAPE)
    stage = build_stage("quantizer", "uniform", bits=3, range="channel")
    stage.bind(layout, SHAPE, generator=torch.Generator())
    payload = made.compress(z, y, None, generator=torch.Generator().manual_seed(5))
    assert stage.fields(layout, "up").floats[0].shape == (8, 2)
    detached = type(payload)(tuple(t.detach() for t in payload.floats), payload.integers, payload.labels)
    sent = stage.send(detached, layout, way="up", generator=torch.Generator())
    found = stage.receive(sent, layout, way="up", generator=torch.Generator()).floats[0].squeeze(1)
    values = detached.floats[0].squeeze(1)
    level = (values.amax(0) - values.amin(0)) / 7
    assert ((found - values).abs().amax(0) <= 0.501 * level).all()
    assert math.isclose(float(found.amax()), float(values.amax()), rel_tol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 1.5, float("nan")])
def test_what_cannot_be_is_one_line(rate: float) -> None:
    with pytest.raises(ValueError, match=r"^compressor\.rate must be in \(0, 1\], got "):
        build("splitfc", rate=rate)
