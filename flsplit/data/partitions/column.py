"""By a column of the data set (writer, site, device): what belongs together stays together."""

from __future__ import annotations

import numpy as np

from flsplit.data.errors import DataError
from flsplit.data.partitions.interface import Partition, Parts, Samples

_SHOWN = 10  # values in a message


class Column(Partition):
    """All samples with one value go to one client.

    With as many clients as values, client k has the k-th value in ascending order. With fewer clients, values are
    dealt out whole, the largest first, each to the client with the fewest samples so far.

    Args:
        column: name of the column, as the data set has it.
        options: see `Partition`.
    """

    def __init__(self, *, column: str, **options: float) -> None:
        super().__init__(**options)
        self.columns = (column,)

    def check(self, samples: Samples, clients: int) -> None:
        """See `Partition`."""
        [(name, values)] = samples.columns.items()
        there = np.unique(values)
        if clients > len(there):
            some = ", ".join(map(str, there[:_SHOWN])) + (", ..." if len(there) > _SHOWN else "")
            raise DataError(
                f"clients={clients}: must be at most {len(there)}, the values that partition.column={name} has "
                f"in the training samples: {some}"
            )

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Parts:
        """See `Partition`. Random numbers decide between values of the same size."""
        [values] = samples.columns.values()
        there, codes, sizes = np.unique(values, return_inverse=True, return_counts=True)
        owner = np.arange(len(there))
        if clients < len(there):
            load = np.zeros(clients, np.int64)
            for value in np.lexsort((rng.random(len(there)), -sizes)):
                owner[value] = load.argmin()
                load[owner[value]] += sizes[value]
        return [np.flatnonzero(owner[codes] == client) for client in range(clients)]
