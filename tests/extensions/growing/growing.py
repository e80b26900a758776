"""Clients that grow: client k has k + 1 parts of the samples."""

import numpy as np

from flsplit.data import Partition


class Growing(Partition):
    """Sizes in arithmetic progression.

    Args:
        first: parts of the first client; each further client has one more.
        options: see `Partition`.
    """

    def __init__(self, *, first: int = 1, **options) -> None:
        super().__init__(**options)
        self.first = first

    def check(self, samples, clients):
        if self.first < 1:
            raise ValueError(f"partition.first must be at least 1, got {self.first}")

    def deal(self, samples, clients, rng):
        parts = np.arange(self.first, self.first + clients)
        ends = (np.cumsum(parts) / parts.sum() * len(samples)).astype(int)
        return np.split(np.arange(len(samples)), ends[:-1])
