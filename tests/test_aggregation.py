"""Averages: exact for one client, in order for many, and delegated to Flower."""

from __future__ import annotations

import pytest
import torch

from flsplit.aggregation import Aggregator, RunningMean
from flsplit.errors import UserError
from flsplit.streams import torch_stream


def vectors(count: int, size: int = 1000) -> list[torch.Tensor]:
    return [torch.randn(size, generator=torch_stream(0, "v", i)) * 10.0 ** (i - 2) for i in range(count)]


def mean_of(pairs: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
    mean = RunningMean()
    for vector, weight in pairs:
        mean.add(vector, weight)
    value = mean.value()
    assert value is not None
    return value


@pytest.mark.parametrize("weight", [1, 7, 49_999])
def test_the_mean_of_one_is_itself_to_the_bit(weight: int) -> None:
    [vector] = vectors(1)
    assert torch.equal(mean_of([(vector, weight)]), vector)
    assert torch.equal(Aggregator("fedavg", {}).aggregate(1, vector, weight), vector)


def test_the_mean_is_weighted_by_samples() -> None:
    pairs = list(zip(vectors(4), (3, 1, 10, 2)))
    expected = sum(v.double() * w for v, w in pairs) / 16
    torch.testing.assert_close(mean_of(pairs).double(), expected, rtol=1e-7, atol=0)


def test_nothing_has_no_mean() -> None:
    assert RunningMean().value() is None


def test_fedavg_gives_the_mean_it_is_given() -> None:
    mean = mean_of(list(zip(vectors(3), (1, 2, 3))))
    found = Aggregator("fedavg", {}).aggregate(5, mean, 6)
    assert torch.equal(found, mean) and found.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedagv", {}, r"^strategy.aggregator must be one of fedavg, got 'fedagv'; did you mean fedavg\?$"),
        ("fedavg", {"fraction_train": 0.5}, r"^strategy.aggregator_args.fraction_train is no option of fedavg"),
        ("fedavg", {"nonsense": 1}, r"^strategy.aggregator_args.nonsense is no option of fedavg"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Aggregator(name, options)
