"""K-means as one Triton program: all its iterations in one launch, nothing waits for the device.

The plain form in `compressors.kmeans` is the reference; its words are not repeated here. Assignments are the same but
where a sample is as far from two centroids to the last bit or two: sums are taken in another order.

Legend of shapes: B samples, T clusters, n features; each is padded to a power of two within the program.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_MOST_SAMPLES, _MOST_DISTANCES = 256, 128 * 128  # what the registers of one program hold
LAUNCH = {"num_warps": 8, "enable_fp_fusion": True}
_FEATURES = 32  # of a mean at a time


def fits(samples: int, clusters: int) -> bool:
    """Whether one program can hold so many."""
    return samples <= _MOST_SAMPLES and _padded(samples) * _padded(clusters) <= _MOST_DISTANCES


def lloyd(x: Tensor, start: Tensor, *, max_iterations: int = 50, tolerance: float = 1e-4) -> tuple[Tensor, Tensor]:
    """As `compressors.kmeans.kmeans`, which calls it.

    Args:
        x: samples (B, n), fp32; B and T as in `fits`.
        start: indices (T,) on the same device.
        max_iterations: at most, >= 1.
        tolerance: of the squared total shift.

    Returns:
        assignment (B,), int64, and centroids (T, n).
    """
    columns = x.T.contiguous()  # a feature of all samples lies together
    means = columns[:, start].contiguous()
    assignment = torch.empty(len(x), dtype=torch.int64, device=x.device)
    with torch.cuda.device_of(x):
        _lloyd[(1,)](
            columns, means, assignment, len(x), len(start), x.shape[1], max_iterations, tolerance,
            SAMPLES=_padded(len(x)), CLUSTERS=_padded(len(start)), FEATURES=_FEATURES, **LAUNCH,
        )  # fmt: skip
    return assignment, means.T.contiguous()


def _padded(count: int) -> int:
    return max(16, triton.next_power_of_2(count))


@triton.jit
def _lloyd(
    columns,
    means,
    assignment,
    samples,
    clusters,
    features,
    max_iterations,
    tolerance,
    SAMPLES: tl.constexpr,
    CLUSTERS: tl.constexpr,
    FEATURES: tl.constexpr,
):
    """`columns` (n, B) and `means` (n, T) lie in memory; `means` holds the start, and the result in the end."""
    sample, cluster = tl.arange(0, SAMPLES), tl.arange(0, CLUSTERS)
    nearest = tl.zeros((SAMPLES,), tl.int32)
    iteration = 0
    while iteration < max_iterations:
        squares = tl.zeros((SAMPLES, CLUSTERS), tl.float32)
        for feature in range(features):
            of_samples = tl.load(columns + feature * samples + sample, sample < samples, 0.0)
            of_means = tl.load(means + feature * clusters + cluster, cluster < clusters, 0.0)
            difference = of_samples[:, None] - of_means[None, :]
            squares += difference * difference
        distances = tl.sqrt_rn(squares)
        distances = tl.where(distances == distances, tl.minimum(distances, 3.4028234663852886e38), 0.0)
        distances = tl.where(cluster[None, :] < clusters, distances, float("inf"))
        nearest = tl.argmin(distances, 1).to(tl.int32)
        nearest = _fill_empty(nearest, tl.min(distances, 1), sample, cluster, samples, clusters)

        member = (nearest[:, None] == cluster[None, :]) & (sample[:, None] < samples)
        weight = member.to(tl.float32)
        members = tl.sum(weight, 0)
        moved = tl.zeros((CLUSTERS,), tl.float32)
        tl.debug_barrier()  # all have read the means
        for first in range(0, features, FEATURES):
            of_tile = first + tl.arange(0, FEATURES)
            rows = tl.load(
                columns + of_tile[:, None] * samples + sample[None, :],
                (of_tile[:, None] < features) & (sample[None, :] < samples), 0.0,
            )  # fmt: skip
            new = tl.dot(rows, weight, input_precision="ieee") / tl.maximum(members, 1.0)[None, :]
            place = means + of_tile[:, None] * clusters + cluster[None, :]
            real = (of_tile[:, None] < features) & (cluster[None, :] < clusters)
            shift = tl.where(real, new - tl.load(place, real, 0.0), 0.0)
            moved += tl.sum(shift * shift, 0)
            tl.store(place, new, real)
        tl.debug_barrier()  # all means are there
        total = tl.sum(tl.sqrt_rn(moved), 0)
        iteration = tl.where(total * total < tolerance, max_iterations, iteration + 1)
    tl.store(assignment + sample, nearest.to(tl.int64), sample < samples)


@triton.jit
def _fill_empty(nearest, distance, sample, cluster, samples, clusters):
    """See `compressors.kmeans._fill_empty`; ranks are counted instead of sorted."""
    member = (nearest[:, None] == cluster[None, :]) & (sample[:, None] < samples)
    empty = ((tl.sum(member.to(tl.int32), 0) == 0) & (cluster < clusters)).to(tl.int32)
    if tl.sum(empty, 0) > 0:
        representative = tl.argmin(tl.where(member, distance[:, None], float("inf")), 0)
        stays = tl.sum((member & (representative[None, :] == sample[:, None])).to(tl.int32), 1) > 0
        gives = tl.where(stays, -1.0, distance)
        gives = tl.where(sample < samples, gives, -2.0)
        before = (gives[None, :] > gives[:, None]) | (
            (gives[None, :] == gives[:, None]) & (sample[None, :] < sample[:, None])
        )
        turn = tl.sum(before.to(tl.int32), 1)
        place = tl.cumsum(empty, 0) - empty  # an empty cluster's place among them
        takes = (empty[None, :] > 0) & (place[None, :] == turn[:, None])
        given = tl.sum(takes.to(tl.int32), 1) > 0
        nearest = tl.where(given, tl.sum(takes.to(tl.int32) * cluster[None, :], 1), nearest)
    return nearest
