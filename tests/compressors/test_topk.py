"""Top-K and RandTopK against loops over samples and entries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compressors import BatchShape, noise
from compressors.randtopk import RandTopK
from compressors.topk import TopK

MakeBatch = Callable[..., tuple[Tensor, Tensor, Tensor]]


def keep(z: Tensor, positions: list[list[int]]) -> Tensor:
    """z with only the entries at positions[i] left in sample i: a mask, entry by entry."""
    mask = torch.zeros(z.shape).flatten(1)
    for sample, kept in enumerate(positions):
        for position in kept:
            mask[sample, position] = 1
    return z * mask.view(z.shape)


def largest(z: Tensor, kept: int) -> list[list[int]]:
    rows = z.detach().flatten(1).tolist()
    return [sorted(range(len(row)), key=lambda i: -abs(row[i]))[:kept] for row in rows]


def assert_same(receive: Callable[[Tensor], Tensor], z: Tensor, positions: list[list[int]]) -> None:
    """Values and gradients of what the server receives against the masked activations."""
    received = receive(z)
    copy = z.detach().cpu().requires_grad_()
    expected = keep(copy, positions)
    assert torch.equal(received.cpu(), expected)
    weights = torch.randn(z.shape)
    ((received - 0.3).pow(2) * weights.to(z.device)).sum().backward()
    ((expected - 0.3).pow(2) * weights).sum().backward()
    assert z.grad is not None and copy.grad is not None
    torch.testing.assert_close(z.grad.cpu(), copy.grad)
    assert int((z.grad != 0).sum()) == sum(len(kept) for kept in positions)


@pytest.mark.parametrize(
    ("batch", "rate", "kept"), [(4, 0.1, 6), (4, 0.125, 8), (1, 0.5, 30), (3, 1.0, 60), (3, 1e-4, 1)]
)
def test_topk_equals_loops(make_batch: MakeBatch, batch: int, rate: float, kept: int, device: str) -> None:
    z, y, s = make_batch(batch, 5, 12, device=device)
    compressor, shape = TopK(rate=rate), BatchShape(batch=batch, tokens=5, width=12, classes=10)
    assert compressor.compress(z, y, s).floats[0].shape == (batch, kept)
    received = lambda z: compressor.decompress(compressor.compress(z, y, s), shape)[0]  # noqa: E731
    assert_same(received, z, largest(z, kept))
    assert torch.equal(compressor.decompress(compressor.compress(z, y, s), shape)[1], y)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.6])
@pytest.mark.parametrize(("batch", "rate", "kept"), [(4, 0.1, 6), (1, 0.5, 30), (2, 1.0, 60)])
def test_randtopk_equals_loops(
    make_batch: MakeBatch, batch: int, rate: float, kept: int, alpha: float, device: str
) -> None:
    z, y, s = make_batch(batch, 5, 12, device=device)
    compressor, shape = (
        RandTopK(rate=rate, alpha=alpha),
        BatchShape(batch=batch, tokens=5, width=12, classes=10),
    )
    draws = torch.empty(batch, 60).exponential_(generator=torch.Generator().manual_seed(1))
    positions = []
    for sample, top in enumerate(largest(z, kept)):
        arrival = []
        for i in range(60):
            mass = (1 - alpha) / kept if i in top else alpha / (60 - kept)
            arrival.append(float(draws[sample, i]) / mass if mass else float("inf"))
        positions.append(sorted(range(60), key=arrival.__getitem__)[:kept])
    received = lambda z: compressor.decompress(compressor.compress(z, y, s, draws=draws), shape)[0]  # noqa: E731
    assert_same(received, z, positions)


def test_randtopk_without_alpha_is_topk(make_batch: MakeBatch) -> None:
    z, y, s = make_batch(6, 5, 12)
    drawn = RandTopK(rate=0.2, alpha=0.0).compress(z, y, s).integers[0]
    assert torch.equal(drawn.sort(1).values, TopK(rate=0.2).compress(z, y, s).integers[0].sort(1).values)


def test_randtopk_draws_like_a_draw_one_after_the_other() -> None:
    """How often each place is drawn, against drawing K times and renormalising what is left."""
    count, features, kept, alpha = 4000, 12, 4, 0.3
    row = torch.linspace(1, 2, features)  # the top K are the last ones
    z = row.expand(count, 1, features)
    generator = torch.Generator().manual_seed(0)
    positions = (
        RandTopK(rate=kept / features, alpha=alpha)
        .compress(z, torch.zeros(count, dtype=torch.int64), None, generator=generator)
        .integers[0]
    )
    assert all(len(set(drawn)) == kept for drawn in positions.tolist())  # without replacement
    often = torch.bincount(positions.flatten(), minlength=features) / count

    expected = torch.zeros(features)
    mass = torch.tensor([alpha / (features - kept)] * (features - kept) + [(1 - alpha) / kept] * kept)
    for _ in range(count):
        left = mass.clone()
        for _ in range(kept):
            pick = int((left.cumsum(0) / left.sum() > torch.rand((), generator=generator)).int().argmax())
            left[pick] = 0
            expected[pick] += 1 / count
    # Standard error of a difference of two such shares: below 0.012.
    torch.testing.assert_close(often, expected, rtol=0, atol=0.045)
    assert float(often[-kept:].mean()) > 2 * float(often[:-kept].mean())


def test_randtopk_draws_from_the_generator(make_batch: MakeBatch) -> None:
    z, y, s = make_batch(4, 5, 12)
    compressor = RandTopK(rate=0.2)
    seeded = [compressor.compress(z, y, s, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(seeded[0].integers[0], seeded[1].integers[0])
    assert not torch.equal(seeded[0].integers[0], seeded[2].integers[0])
    draws = noise.exponential((4, 60), torch.Generator().manual_seed(3), torch.device("cpu"))
    explicit = compressor.compress(z, y, s, generator=torch.Generator().manual_seed(4), draws=draws)
    assert torch.equal(seeded[0].integers[0], explicit.integers[0])


def test_randtopk_survives_draws_of_zero(make_batch: MakeBatch) -> None:
    z, y, s = make_batch(2, 5, 12)
    drawn = RandTopK(rate=0.1, alpha=0.0).compress(z, y, s, draws=torch.zeros(2, 60)).integers[0]
    assert torch.equal(drawn.sort(1).values, TopK(rate=0.1).compress(z, y, s).integers[0].sort(1).values)


def test_draws_of_the_wrong_shape(make_batch: MakeBatch) -> None:
    z, y, s = make_batch(2, 5, 12)
    with pytest.raises(ValueError, match=r"draws must have shape \(2, 60\), got \(2, 5\)"):
        RandTopK().compress(z, y, s, draws=torch.ones(2, 5))
