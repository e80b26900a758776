"""Every client has samples of a few classes only (the other reading of McMahan et al., arXiv 1602.05629).

Classes are dealt more evenly than by flwr-datasets, which can leave classes out.
"""

from __future__ import annotations

import math

import numpy as np

from flsplit.data.errors import DataError
from flsplit.data.partitions.interface import Partition, Parts, Samples


class Pathological(Partition):
    """A few classes for each client; more, where fewer would leave a class without a client.

    Args:
        classes_per_client: how many.
        options: see `Partition`.
    """

    def __init__(self, *, classes_per_client: int = 2, **options: float) -> None:
        super().__init__(**options)
        if classes_per_client < 1:
            raise DataError(f"partition.classes_per_client={classes_per_client}: must be 1 or more")
        self.classes_per_client = classes_per_client

    def check(self, samples: Samples, clients: int) -> None:
        """See `Partition`."""
        if self.classes_per_client > samples.classes:
            raise DataError(
                f"partition.classes_per_client={self.classes_per_client}: there are only {samples.classes} classes"
            )

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Parts:
        """Deal classes out like cards, then split each class evenly between its holders.

        The deck holds every class once and is shuffled anew when it runs out, so that all classes have about
        as many holders. Where the clients' hands together cannot hold every class they are made larger.
        """
        classes = np.unique(samples.labels)
        size = max(min(self.classes_per_client, len(classes)), math.ceil(len(classes) / clients))
        holders: dict[int, list[int]] = {int(label): [] for label in classes}
        deck: list[int] = []
        for client in range(clients):
            hand: list[int] = []
            while len(hand) < size:
                if not deck:
                    deck = [int(label) for label in rng.permutation(classes)]
                    deck.sort(key=hand.__contains__)  # what this client holds already goes to the bottom
                hand.append(deck.pop(0))
            for label in hand:
                holders[label].append(client)
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for label, clients_of_label in holders.items():
            pieces = np.array_split(np.flatnonzero(samples.labels == label), len(clients_of_label))
            for client, piece in zip(clients_of_label, pieces):
                parts[client].append(piece)
        return [np.concatenate(part) for part in parts]
