"""Random numbers drawn where they are used: of the right kind, alike everywhere, by the words of SplitMix64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from compressors import noise

CPU = torch.device("cpu")
Draw = Callable[..., Tensor]
KINDS: list[tuple[Draw, str]] = [(noise.uniform, "uniform"), (noise.exponential, "expon"), (noise.normal, "norm")]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def word(key: int, number: int) -> int:
    """SplitMix64 as its authors write it, with Python's integers."""
    most = (1 << 64) - 1
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & most
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & most
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & most
    return z ^ (z >> 31)


def test_splitmix() -> None:
    """A word of the seed 1234567, as other implementations publish it."""
    assert word(1234567, 0) == 6457827717110365317


def test_uniform_is_made_of_its_words() -> None:
    found = noise.uniform((3, 50_001), stream(), CPU).flatten()  # several blocks, and an odd count
    key = int(torch.randint(2**63 - 1, (), generator=stream()))
    for number in (0, 1, 17, 32_767, 32_768, 65_536, 75_001):
        both = word(key, number)
        for half, place in ((both & 0xFFFFFFFF, 2 * number), (both >> 32, 2 * number + 1)):
            if place < len(found):
                signed = half - (1 << 32) if half >> 31 else half
                assert found[place] == (signed >> 8) / 2**24 + 0.5


@pytest.mark.parametrize(("draw", "name"), KINDS)
def test_distribution(draw: Draw, name: str) -> None:
    sample = draw((200_000,), stream(5), CPU).double().numpy()
    assert stats.kstest(sample, name).pvalue > 0.01
    neighbours = stats.pearsonr(sample[:-1], sample[1:]).pvalue
    halves = stats.pearsonr(sample[: len(sample) // 2], sample[len(sample) // 2 :]).pvalue
    assert min(neighbours, halves) > 0.01


def test_bounds() -> None:
    found = noise.uniform((1 << 22,), stream(), CPU)
    assert found.min() >= 0 and found.max() < 1
    assert noise.exponential((1 << 20,), stream(), CPU).min() >= 0
    assert noise.normal((1 << 20,), stream(), CPU).abs().max() < 5.8


@pytest.mark.parametrize(("draw", "name"), KINDS)
def test_same_stream_same_numbers(draw: Draw, name: str) -> None:
    assert torch.equal(draw((5, 7), stream(), CPU), draw((35,), stream(), CPU).view(5, 7))
    assert not torch.equal(draw((35,), stream(), CPU), draw((35,), stream(1), CPU))
    one = stream()
    first, second = draw((35,), one, CPU), draw((35,), one, CPU)
    assert not torch.isin(first, second).any()  # the stream has gone on


@pytest.mark.parametrize(("draw", "name"), KINDS)
@pytest.mark.parametrize("shape", [(), (0,), (4, 0), (1,), (3, 3)])
def test_shapes(draw: Draw, name: str, shape: tuple[int, ...]) -> None:
    found = draw(shape, stream(), CPU)
    assert found.shape == shape and found.dtype is torch.float32
    assert draw(shape, stream(), torch.device("meta")).shape == shape


@pytest.mark.parametrize(("draw", "name"), KINDS)
def test_devices_agree(draw: Draw, name: str, device: str) -> None:
    there = draw((1001,), stream(), torch.device(device)).cpu()
    if name == "uniform":
        assert torch.equal(there, draw((1001,), stream(), CPU))
    torch.testing.assert_close(there, draw((1001,), stream(), CPU), rtol=1e-5, atol=1e-6)


def test_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = noise.uniform((1001,), stream(), CPU)
    monkeypatch.setattr(noise, "_BLOCK", 7)
    assert torch.equal(noise.uniform((1001,), stream(), CPU), found)
    assert math.isclose(found.mean(), 0.5, abs_tol=0.05)
