"""K-means that always ends with exactly T non-empty clusters and waits for no device.

On a GPU all iterations are one launch where Triton can be used (`compressors.kmeans_triton`), as with every PyTorch
for CUDA on Linux. Its clusters are those of the operations below, but where two distances are equal to rounding.

Legend of shapes: B samples, T clusters, n features.
"""

import logging
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from compressors.interface import outside_autocast


def membership(assignment: Tensor, clusters: int) -> Tensor:
    """One-hot rows, bool: whether sample b is in cluster t, (B,) to (B, T)."""
    return assignment.unsqueeze(1) == torch.arange(clusters, device=assignment.device)


def cluster_means(values: Tensor, assignment: Tensor, clusters: int) -> Tensor:
    """Mean of the members of every cluster: a product with the membership matrix, hence repeatable on CUDA.

    Args:
        values: (B, n), differentiable.
        assignment: cluster of every sample (B,), int64; no cluster may be empty.
        clusters: T.

    Returns:
        (T, n).
    """
    member = membership(assignment, clusters).to(values.dtype)
    return member.T @ values / member.sum(0).unsqueeze(1)


@torch.no_grad()
def kmeans(
    x: Tensor,
    start: Tensor,
    *,
    max_iterations: int = 50,
    tolerance: float = 1e-4,
    look_every: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm with Euclidean distances, in fp32.

    It ends when (sum over clusters of the distance a centroid moved)^2 < `tolerance`. A cluster that attracts
    no sample is given one (see `_fill_empty`), so T stays T even if all samples are alike.

    Args:
        x: samples (B, n).
        start: indices (T,) of the distinct samples that are the first centroids; T <= B.
        max_iterations: iterations at most, >= 1.
        tolerance: of the squared total shift.
        look_every: iterations between two looks at the test for the end, each of which waits for the device
            (default: 1 on CPU; elsewhere one launch does it all or, where it cannot, 4). The result stays frozen
            once the test holds, so it does not depend on this.

    Returns:
        assignment: cluster of every sample (B,), int64, each of the T clusters taken at least once.
        centroids: (T, n), the means of that assignment.
    """
    clusters = len(start)
    assert 1 <= clusters <= len(x) and max_iterations >= 1, (clusters, len(x), max_iterations)
    x = x.detach().float()
    if look_every is None and x.is_cuda and (kernel := _one_launch()) and kernel.fits(len(x), clusters):
        return kernel.lloyd(x, start, max_iterations=max_iterations, tolerance=tolerance)
    if look_every is None:
        look_every = 1 if x.device.type == "cpu" else 4
    centroids = x[start]
    assignment = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    done = torch.zeros((), dtype=torch.bool, device=x.device)
    with outside_autocast(x):
        for iteration in range(1, max_iterations + 1):
            new_assignment = _assign(x, centroids)
            new_centroids = cluster_means(x, new_assignment, clusters)
            shift = (new_centroids - centroids).norm(dim=1).sum()
            assignment = torch.where(done, assignment, new_assignment)
            centroids = torch.where(done, centroids, new_centroids)
            done = done | (shift.square() < tolerance)
            if iteration % look_every == 0 and bool(done):
                break
    return assignment, centroids


@cache
def _one_launch() -> ModuleType | None:
    """The Triton kernel, if this machine can build and run it (which takes a C compiler); found out once a process."""
    try:
        from compressors import kmeans_triton

        kmeans_triton.lloyd(torch.zeros(2, 1, device="cuda"), torch.tensor([0], device="cuda"))
    except Exception as error:  # whatever is missing, the plain operations do
        reason = (str(error).splitlines() or [""])[0]
        logging.getLogger(__name__).warning(
            "K-means takes many launches: Triton cannot be used here (%s: %s)", type(error).__name__, reason
        )
        return None
    return kmeans_triton


def _assign(x: Tensor, centroids: Tensor) -> Tensor:
    """Nearest centroid of every sample (the lowest index among equals), with no cluster left empty: (B,)."""
    # Differences, not the expansion |x|^2 - 2xc + |c|^2: attention scores are small and close together.
    # Overflow and NaN become numbers, so that the promise of non-empty clusters holds for any input.
    distances = torch.cdist(x, centroids, compute_mode="donot_use_mm_for_euclid_dist").nan_to_num()
    distance, assignment = distances.min(dim=1)
    return _fill_empty(assignment, distance, len(centroids))


def _fill_empty(assignment: Tensor, distance: Tensor, clusters: int) -> Tensor:
    """Give every empty cluster the sample that lies farthest from its own centroid.

    The member nearest to its centroid represents its cluster and stays, so that giving empties no cluster.
    The others, ordered by falling distance (the lowest index among equals), go to the empty clusters in the
    order of their indices. All shapes are fixed: nothing waits for the device to know how many are empty.

    Args:
        assignment: (B,), int64.
        distance: of every sample to its centroid (B,), finite.
        clusters: T <= B.

    Returns:
        (B,), int64.
    """
    member = membership(assignment, clusters)
    empty = ~member.any(0)
    representative = distance.unsqueeze(1).masked_fill(~member, torch.inf).argmin(0)  # of no use where empty
    stays = representative[assignment] == torch.arange(len(assignment), device=assignment.device)
    givers = distance.masked_fill(stays, -1).sort(descending=True, stable=True).indices
    turn = givers.argsort()  # a sample's place among the givers
    receivers = empty.int().sort(descending=True, stable=True).indices
    receiver = receivers[turn.clamp(max=clusters - 1)]
    return torch.where(turn < empty.sum(), receiver, assignment)
