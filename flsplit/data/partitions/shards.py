"""Samples sorted by label, cut into equal shards, dealt out at random (McMahan et al., arXiv 1602.05629)."""

from __future__ import annotations

import numpy as np

from flsplit.data.errors import DataError
from flsplit.data.partitions.interface import Partition, Parts, Samples

_EMPTY = 10  # times as many shards as samples, most of them empty: enough for any study, and few enough for memory


class Shards(Partition):
    """A few runs of neighbouring labels for each client.

    Args:
        shards_per_client: how many.
        options: see `Partition`.
    """

    def __init__(self, *, shards_per_client: int = 2, **options: float) -> None:
        super().__init__(**options)
        if shards_per_client < 1:
            raise DataError(f"partition.shards_per_client={shards_per_client}: must be 1 or more")
        self.shards_per_client = shards_per_client

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Parts:
        """See `Partition`. Shards are equal up to one sample."""
        most = _EMPTY * len(samples.labels) // clients
        if self.shards_per_client > most:
            raise DataError(
                f"partition.shards_per_client={self.shards_per_client}: must be at most {most}: {clients} clients "
                f"have {len(samples.labels)} training samples"
            )
        shards = np.array_split(np.argsort(samples.labels, kind="stable"), clients * self.shards_per_client)
        dealt = rng.permutation(len(shards)).reshape(clients, self.shards_per_client)
        return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]
