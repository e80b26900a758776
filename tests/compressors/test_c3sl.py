"""C3-SL against circular convolution and correlation written as double sums."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compressors import BatchShape
from compressors.c3sl import C3SL

MakeBatch = Callable[..., tuple[Tensor, Tensor, Tensor]]


def convolve(a: Tensor, b: Tensor) -> Tensor:
    n = len(a)
    return torch.stack([sum((a[i] * b[(j - i) % n] for i in range(n)), torch.zeros(())) for j in range(n)])


def correlate(key: Tensor, a: Tensor) -> Tensor:
    n = len(a)
    return torch.stack([sum((key[i] * a[(i + j) % n] for i in range(n)), torch.zeros(())) for j in range(n)])


@pytest.mark.parametrize(
    ("batch", "group", "tokens", "width"),
    [(4, 2, 3, 4), (6, 3, 3, 5), (3, 1, 2, 4), (2, 4, 3, 4), (1, 4, 3, 3), (4, 4, 5, 3)],
)
def test_equals_double_sums(
    make_batch: MakeBatch, batch: int, group: int, tokens: int, width: int, device: str
) -> None:
    z, y, s = make_batch(batch, tokens, width, device=device)
    keys = torch.randn(group, tokens * width)
    compressor = C3SL(group=group).bind(tokens=tokens, width=width, keys=keys)
    payload = compressor.compress(z, y, s)
    received, targets = compressor.decompress(payload, BatchShape(batch=batch, tokens=tokens, width=width, classes=10))
    assert torch.equal(targets, y)

    copy = z.detach().cpu().requires_grad_()
    members = min(batch, group)
    sums, decoded = [], []
    for first in range(0, batch, members):
        bound = [convolve(copy[first + i].flatten(), keys[i]) for i in range(members)]
        sums.append(torch.stack(bound).sum(0))
        decoded += [correlate(keys[i], sums[-1]) for i in range(members)]
    torch.testing.assert_close(payload.floats[0].cpu().flatten(1), torch.stack(sums), rtol=1e-4, atol=1e-4)
    expected = torch.stack(decoded).view(batch, tokens, width)
    torch.testing.assert_close(received.cpu(), expected, rtol=1e-4, atol=1e-4)

    weights = torch.randn(expected.shape)
    (received.sin() * weights.to(device)).sum().backward()
    (expected.sin() * weights).sum().backward()
    assert z.grad is not None and copy.grad is not None
    torch.testing.assert_close(z.grad.cpu(), copy.grad, rtol=1e-3, atol=1e-3)


def test_keys_are_normal_with_unit_norm_and_come_from_the_generator() -> None:
    keys = [
        C3SL(group=3).bind(tokens=20, width=50, generator=torch.Generator().manual_seed(seed)).keys
        for seed in (1, 1, 2)
    ]
    assert all(isinstance(key, Tensor) and key.shape == (3, 1000) for key in keys)
    assert torch.equal(keys[0], keys[1]) and not torch.equal(keys[0], keys[2])  # type: ignore[arg-type]
    torch.testing.assert_close(keys[0].norm(dim=1), torch.ones(3))  # type: ignore[union-attr]
    scaled = keys[0].flatten() * 1000**0.5  # type: ignore[union-attr]
    assert abs(float(scaled.mean())) < 0.1
    assert float((scaled.abs() < 1).float().mean()) == pytest.approx(0.683, abs=0.04)  # one sigma
    assert float((scaled.abs() < 2).float().mean()) == pytest.approx(0.954, abs=0.02)


def test_a_group_of_one_is_recovered_but_for_noise(make_batch: MakeBatch) -> None:
    """A key correlated with itself is close to a unit impulse, so that most of the signal comes back."""
    z, y, s = make_batch(1, 20, 50)
    shape = BatchShape(batch=1, tokens=20, width=50, classes=10)
    compressor = C3SL(group=1).bind(tokens=20, width=50, generator=torch.Generator().manual_seed(0))
    received = compressor.decompress(compressor.compress(z, y, s), shape)[0]
    correlation = torch.corrcoef(torch.stack([received.flatten(), z.flatten()]))[0, 1]
    assert correlation.item() > 0.6


def test_new_keys_replace_the_cached_spectra(make_batch: MakeBatch) -> None:
    z, y, s = make_batch(2, 3, 4)
    compressor = C3SL(group=2).bind(tokens=3, width=4, keys=torch.ones(2, 12))
    first = compressor.compress(z, y, s).floats[0]
    second = compressor.bind(tokens=3, width=4, keys=2 * torch.ones(2, 12)).compress(z, y, s).floats[0]
    torch.testing.assert_close(second, 2 * first)


def test_refuses_what_does_not_fit(make_batch: MakeBatch) -> None:
    compressor = C3SL(group=4)
    assert compressor.group_size == 4
    with pytest.raises(ValueError, match=r"no keys yet: call bind"):
        compressor.compress(*make_batch(4, 3, 4))
    compressor.bind(tokens=3, width=4)
    with pytest.raises(ValueError, match=r"compressor\.group is 4, but the batch of 6 is no multiple"):
        compressor.compress(*make_batch(6, 3, 4))
    with pytest.raises(ValueError, match=r"compressor\.group must divide the batch size, got group 4"):
        compressor.check(batch_size=30)
    compressor.check(batch_size=32)
    with pytest.raises(ValueError, match=r"keys must have shape \(4, 12\), got \(2, 12\)"):
        compressor.bind(tokens=3, width=4, keys=torch.ones(2, 12))
