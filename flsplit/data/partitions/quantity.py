"""Random samples, but log-normally distributed numbers of them."""

from __future__ import annotations

import math

import numpy as np

from flsplit.data.errors import DataError
from flsplit.data.partitions.interface import Partition, Parts, Samples
from flsplit.data.subset import shares


class Quantity(Partition):
    """Quantity skew, whatever the labels.

    Args:
        sigma: spread of the logarithm of the clients' sizes; 0 gives equal sizes.
        options: see `Partition`.
    """

    def __init__(self, *, sigma: float = 1.0, **options: float) -> None:
        super().__init__(**options)
        if not 0 <= sigma < math.inf:
            raise DataError(f"partition.sigma={sigma}: must be 0 or more, and finite")
        self.sigma = sigma

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Parts:
        """See `Partition`."""
        logarithms = rng.normal(0.0, self.sigma, clients)
        sizes = shares(np.exp(logarithms - logarithms.max()), len(samples), rng)
        return np.split(np.arange(len(samples)), np.cumsum(sizes)[:-1])
