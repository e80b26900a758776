"""The Triton form of K-means against the plain one, by Triton's interpreter (see `test_kmeans_triton.py`)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressors import kmeans as plain
from compressors import kmeans_triton as kernel
from tests.compressors.test_kmeans import blobs


def same(x: Tensor, start: Tensor, iterations: int = 50) -> None:
    expected, centroids = plain.kmeans(x, start, max_iterations=iterations)
    assignment, means = kernel.lloyd(x, start, max_iterations=iterations)
    assert torch.equal(assignment, expected)
    torch.testing.assert_close(means, centroids, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("samples", "clusters", "features"), [(16, 4, 10), (37, 9, 33), (20, 20, 5), (9, 1, 3), (3, 2, 1)]
)
@pytest.mark.parametrize("seed", range(2))
def test_clusters_are_those_of_the_plain_form(samples: int, clusters: int, features: int, seed: int) -> None:
    start = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))[:clusters]
    same(blobs(samples, features, seed), start)


def test_clusters_of_the_papers_sizes() -> None:
    """A ratio of 0.1 with B=128: 40 clusters of attention to 197 tokens."""
    same(blobs(128, 197, 0).softmax(1), torch.arange(40))


@pytest.mark.parametrize("seed", range(3))
def test_empty_clusters_take_the_same_samples(seed: int) -> None:
    """In the first iteration, whose distances are exact; later, alike samples differ by rounding."""
    x = blobs(7, 4, seed)[torch.randint(7, (30,), generator=torch.Generator().manual_seed(seed))]
    same(x, torch.arange(12), iterations=1)


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(torch.full((32, 6), 0.1), id="identical"),
        pytest.param(blobs(32, 6, 0) * 1e30, id="overflowing"),
        pytest.param(blobs(32, 6, 0).index_fill(0, torch.tensor([3]), torch.nan), id="nan"),
    ],
)
@pytest.mark.parametrize("clusters", [2, 31])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, which the interpreter stands on
def test_no_cluster_is_ever_empty(x: Tensor, clusters: int, iterations: int) -> None:
    assignment, means = kernel.lloyd(x, torch.arange(clusters), max_iterations=iterations)
    assert sorted(set(assignment.tolist())) == list(range(clusters))
    assert means.shape == (clusters, 6)


@pytest.mark.parametrize("seed", range(3))
def test_ends_by_the_same_tolerance(seed: int) -> None:
    x, start = blobs(60, 8, seed), torch.arange(9)
    expected, _ = plain.kmeans(x, start, tolerance=36.0)  # loose: going on would change the clusters
    assert not torch.equal(expected, plain.kmeans(x, start, tolerance=0.0)[0])
    assert torch.equal(kernel.lloyd(x, start, tolerance=36.0)[0], expected)


@pytest.mark.parametrize(("samples", "clusters", "fits"), [
    (128, 40, True), (128, 128, True), (256, 64, True), (256, 65, False), (257, 2, False), (25_000, 64, False),
])  # fmt: skip
def test_says_what_it_holds(samples: int, clusters: int, fits: bool) -> None:
    assert kernel.fits(samples, clusters) is fits
