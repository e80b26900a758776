"""Stratified subsets: the classes keep their proportions."""

from __future__ import annotations

import numpy as np


def shares(weights: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Splits `total` items in proportion to `weights` by largest remainder; `rng` decides between equals.

    Args:
        weights: (n,), not negative, with a positive sum.
        total: How many items to deal out.
        rng: Draws the order among equal remainders.

    Returns:
        (n,) int64 counts that sum to `total`.
    """
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(np.int64)
    left = total - int(counts.sum())
    # Rounded, so that remainders that differ only by the arithmetic's last bits count as equal.
    order = np.lexsort((rng.random(len(weights)), -np.round(exact - counts, 9)))
    counts[order[:left]] += 1
    return counts


def stratified(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Chooses `count` samples with the classes in proportion.

    Args:
        labels: (n,) integers.
        count: How many; all of them if there are no more.
        rng: Draws the samples within each class.

    Returns:
        Their positions, ascending.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    chosen = [
        rng.choice(np.flatnonzero(labels == label), size=share, replace=False)
        for label, share in zip(classes, shares(sizes, count, rng))
    ]
    return np.sort(np.concatenate(chosen))
