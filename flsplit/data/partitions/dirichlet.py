"""Each class is split in proportions drawn from a symmetric Dirichlet distribution (Yurochkin et al. 2019).

arXiv 1905.12022, and `DirichletPartitioner` of Flower Datasets. So clients' sizes differ as well as their labels; an
`alpha` of Hsu et al. (arXiv 1909.06335), who draw the labels of clients that all have as many samples, is another.
"""

from __future__ import annotations

import math

import numpy as np

from flsplit.data.errors import DataError
from flsplit.data.partitions.interface import Partition, Parts, Samples


class Dirichlet(Partition):
    """Skew of labels, and of sizes.

    Args:
        alpha: concentration; small is skewed, infinite is `iid`.
        options: see `Partition`.
    """

    def __init__(self, *, alpha: float = 0.3, **options: float) -> None:
        super().__init__(**options)
        if not alpha > 0:  # also catches nan
            raise DataError(f"partition.alpha={alpha}: must be above 0 (inf is iid)")
        self.alpha = float(alpha)

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Parts:
        """See `Partition`."""
        if math.isinf(self.alpha):
            return np.array_split(np.arange(len(samples)), clients)
        # Beyond these ends all goes to one client, or to all alike; there NumPy's draw would end in nan.
        alpha = np.full(clients, min(max(self.alpha, 1e-6), 1e12))
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for label in np.unique(samples.labels):
            members = np.flatnonzero(samples.labels == label)
            ends = (np.cumsum(rng.dirichlet(alpha)) * len(members)).astype(int)
            for part, piece in zip(parts, np.split(members, ends[:-1])):
                part.append(piece)
        return [np.concatenate(part) for part in parts]
