"""K-means against plain loops: same clusters, never an empty one, no matter how often it looks at the end."""

import pytest
import torch
from torch import Tensor

from compressors.kmeans import _assign, cluster_means, kmeans


def slow_kmeans(
    x: Tensor, start: list[int], max_iterations: int = 50, tolerance: float = 1e-4
) -> tuple[list[int], Tensor, int, int]:
    """Lloyd's algorithm sample by sample in float64, with the same rule for empty clusters.

    Returns assignment, centroids, iterations, and how many clusters had to be given a sample.
    """
    points = x.double()
    centroids = [points[i] for i in start]
    given = iteration = 0
    while iteration < max_iterations:
        iteration += 1
        assignment, distance = [], []
        for point in points:
            to_each = [float((point - centroid).norm()) for centroid in centroids]
            assignment.append(to_each.index(min(to_each)))
            distance.append(min(to_each))
        staying = set()
        for cluster in range(len(start)):
            members = [i for i in range(len(x)) if assignment[i] == cluster]
            if members:
                staying.add(min(members, key=lambda i: distance[i]))
        givers = [i for i in range(len(x)) if i not in staying]
        givers.sort(key=lambda i: -distance[i])
        for cluster in [t for t in range(len(start)) if t not in assignment]:
            assignment[givers.pop(0)] = cluster
            given += 1
        means = []
        for cluster in range(len(start)):
            means.append(points[[i for i in range(len(x)) if assignment[i] == cluster]].mean(0))
        shift = sum(float((new - old).norm()) for new, old in zip(means, centroids))
        centroids = means
        if shift**2 < tolerance:
            break
    return assignment, torch.stack(centroids), iteration, given


def blobs(count: int, features: int, seed: int) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "features", "clusters"), [(24, 5, 4), (40, 17, 13), (9, 3, 9), (30, 2, 2)])
def test_equals_loops(count: int, features: int, clusters: int, seed: int, device: str) -> None:
    x = blobs(count, features, seed)
    start = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:clusters]
    expected, centroids, iterations, given = slow_kmeans(x, start.tolist())
    assert given == 0  # plain Lloyd: the rule for empty clusters played no part
    assert clusters == count or iterations > 1
    assignment, means = kmeans(x.to(device), start.to(device))
    assert assignment.tolist() == expected
    torch.testing.assert_close(means.cpu().double(), centroids, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_equals_loops_where_clusters_run_empty(seed: int, device: str) -> None:
    distinct = blobs(7, 4, seed)
    x = distinct[torch.randint(7, (30,), generator=torch.Generator().manual_seed(seed))]
    start = torch.arange(12)
    expected, centroids, _, given = slow_kmeans(x, start.tolist(), max_iterations=1)
    assert given > 0
    assignment, means = kmeans(x.to(device), start.to(device), max_iterations=1)
    assert assignment.tolist() == expected
    torch.testing.assert_close(means.cpu().double(), centroids, rtol=1e-5, atol=1e-6)


def test_empty_cluster_takes_the_farthest_sample() -> None:
    # Both centroids start at 0, so cluster 1 attracts nothing; 5.0 lies farthest, 0.0 represents cluster 0.
    x = torch.tensor([[0.0], [0.0], [5.0], [1.0]])
    assignment, means = kmeans(x, torch.tensor([0, 1]), max_iterations=1)
    assert assignment.tolist() == [0, 0, 1, 0]
    torch.testing.assert_close(means, torch.tensor([[1 / 3], [5.0]]))


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(blobs(32, 6, 0), id="random"),
        pytest.param(blobs(4, 6, 0).repeat(8, 1), id="duplicated"),
        pytest.param(torch.full((32, 6), 0.1), id="identical"),
        pytest.param(torch.zeros(32, 6), id="zero"),
        pytest.param(blobs(32, 6, 0) * 1e30, id="overflowing"),
        pytest.param(blobs(32, 6, 0).index_fill(0, torch.tensor([3]), torch.nan), id="nan"),
        pytest.param(blobs(1, 6, 0), id="single"),
    ],
)
@pytest.mark.parametrize("share", [2, 5, 31, 32])
def test_no_cluster_is_ever_empty(x: Tensor, share: int, device: str) -> None:
    clusters = min(share, len(x))
    for iterations in (1, 2, 50):
        assignment, means = kmeans(x.to(device), torch.arange(clusters, device=device), max_iterations=iterations)
        assert sorted(set(assignment.tolist())) == list(range(clusters))
        assert means.shape == (clusters, 6)


def test_infinite_distances_empty_no_cluster(device: str) -> None:
    # Samples 1 and 2 are infinitely far from everything; one of them must still represent cluster 0.
    x = torch.tensor([[0.0], [3e30], [-3e30], [0.0]], device=device)
    assignment = _assign(x, torch.tensor([[1e25], [0.0], [1e25], [1e25]], device=device))
    assert sorted(assignment.tolist()) == [0, 1, 2, 3]


def test_identical_samples_keep_their_centroid() -> None:
    _, means = kmeans(torch.full((16, 3), 0.1), torch.arange(5))
    torch.testing.assert_close(means, torch.full((5, 3), 0.1))


@pytest.mark.parametrize("seed", range(3))
def test_result_does_not_depend_on_how_often_it_looks(seed: int, device: str) -> None:
    x, start = blobs(60, 8, seed).to(device), torch.arange(9, device=device)
    # A loose tolerance: going on past the end would move the centroids.
    runs = [kmeans(x, start, tolerance=36.0, look_every=every) for every in (1, 3, 7, 1000)]
    assert not torch.equal(runs[0][1], kmeans(x, start, tolerance=0.0)[1])
    for assignment, means in runs[1:]:
        assert torch.equal(assignment, runs[0][0])
        assert torch.equal(means, runs[0][1])


def test_stops_at_the_tolerance_and_at_the_limit() -> None:
    x, start = blobs(60, 8, 1), torch.arange(9)
    _, _, iterations, _ = slow_kmeans(x, start.tolist(), tolerance=36.0)
    limited = kmeans(x, start, max_iterations=iterations, tolerance=0.0)
    assert torch.equal(kmeans(x, start, tolerance=36.0)[1], limited[1])
    assert not torch.equal(kmeans(x, start, max_iterations=iterations - 1, tolerance=0.0)[1], limited[1])


def test_returned_centroids_are_the_means_of_the_returned_assignment() -> None:
    x = blobs(40, 5, 2)
    for limit in (1, 2, 50):
        assignment, means = kmeans(x, torch.arange(6), max_iterations=limit)
        for cluster in range(6):
            torch.testing.assert_close(means[cluster], x[assignment == cluster].mean(0))


def test_runs_outside_autocast() -> None:
    x, start = blobs(40, 5, 3), torch.arange(6)
    expected, means = kmeans(x, start)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assignment, cast = kmeans(x, start)
    assert torch.equal(assignment, expected) and torch.equal(cast, means)


def test_cluster_means_pass_gradients_evenly() -> None:
    values = blobs(5, 2, 0).requires_grad_()
    cluster_means(values, torch.tensor([0, 1, 0, 0, 1]), 2).sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad[:, 0], torch.tensor([1 / 3, 1 / 2, 1 / 3, 1 / 3, 1 / 2]))
