"""Every client gets a random share of the same size, up to one sample."""

from __future__ import annotations

import numpy as np

from flsplit.data.partitions.interface import Partition, Parts, Samples


class Iid(Partition):
    """Equal shares, whatever the labels."""

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Parts:
        """See `Partition`."""
        return np.array_split(np.arange(len(samples)), clients)
