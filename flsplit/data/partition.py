"""Deals samples out to clients: every sample to exactly one, and no client is left without any.

The samples are first shuffled, then dealt out by one of the functions below, then a top-up gives each empty
client one sample of the largest one.

`iid`, `dirichlet` and `shards` give what flwr-datasets' `IidPartitioner`, `DirichletPartitioner` (without
self-balancing) and `ShardPartitioner` give for the same shuffled labels and random numbers, sample by sample,
wherever those accept the request and use all samples; the tests hold them to it. They are written out here
because those refuse valid requests (an infinite alpha, more shards than samples), drop what does not divide
evenly, and would add more than a second of imports to the start of every run. `pathological` deals classes
more evenly than flwr-datasets, which can leave classes out; `quantity` is not in it.

References: Hsu et al. 2019 (arXiv 1909.06335) for `dirichlet`; McMahan et al. 2017 (arXiv 1602.05629) for
`shards` and `pathological`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flsplit.data.errors import DataError
from flsplit.data.subset import shares, stratified
from flsplit.streams import numpy_stream

Parts = list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class PartitionConfig:
    """How samples are dealt out.

    Attributes:
        name: `iid`, `dirichlet`, `shards`, `pathological` or `quantity`.
        alpha: `dirichlet`: concentration; small is skewed, infinite is `iid`.
        shards_per_client: `shards`: runs of samples sorted by label that each client gets.
        classes_per_client: `pathological`: classes that each client has samples of.
        sigma: `quantity`: spread of the logarithm of the clients' sizes; 0 gives equal sizes.
        holdout: Fraction of each client's samples kept for its own test.
    """

    name: str
    alpha: float = 0.3
    shards_per_client: int = 2
    classes_per_client: int = 2
    sigma: float = 1.0
    holdout: float = 0.0


def validate(config: PartitionConfig, clients: int, samples: int, classes: int) -> None:
    """Checks the numbers against each other.

    Raises:
        DataError: One line about the first that is wrong.
    """
    if config.name not in _DEALERS:
        raise DataError(f"partition: {config.name!r} is unknown; choose one of {', '.join(_DEALERS)}")
    if clients < 1:
        raise DataError(f"clients={clients}: must be 1 or more")
    if clients > samples:
        raise DataError(f"clients={clients}: there are only {samples} training samples, and each needs one")
    if not config.alpha > 0:  # also catches nan
        raise DataError(f"partition.alpha={config.alpha}: must be above 0 (inf is iid)")
    if config.shards_per_client < 1:
        raise DataError(f"partition.shards_per_client={config.shards_per_client}: must be 1 or more")
    if config.classes_per_client < 1:
        raise DataError(f"partition.classes_per_client={config.classes_per_client}: must be 1 or more")
    if config.name == "pathological" and config.classes_per_client > classes:
        raise DataError(f"partition.classes_per_client={config.classes_per_client}: there are only {classes} classes")
    if not 0 <= config.sigma < math.inf:
        raise DataError(f"partition.sigma={config.sigma}: must be 0 or more, and finite")
    if not 0 <= config.holdout < 1:
        raise DataError(f"partition.holdout={config.holdout}: must be at least 0 and below 1")


def partition(labels: np.ndarray, clients: int, config: PartitionConfig, *, seed: int) -> Parts:
    """Deals the samples out.

    Args:
        labels: (n,) integers from 0.
        clients: How many clients, at most n.
        config: How.
        seed: The run's seed.

    Returns:
        For each client its positions in `labels`, ascending.

    Raises:
        DataError: The numbers do not fit, see `validate`.
    """
    validate(config, clients, len(labels), int(labels.max(initial=-1)) + 1)
    rng = numpy_stream(seed, "partition")
    order = rng.permutation(len(labels))
    parts = [order[part] for part in _DEALERS[config.name](labels[order], clients, config, rng)]
    return [np.sort(part) for part in _top_up(parts, rng)]


def split_holdout(
    indices: np.ndarray, labels: np.ndarray, fraction: float, *, seed: int, client: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sets a client's own test samples apart, with its classes in proportion.

    Args:
        indices: The client's samples, as positions in `labels`.
        labels: Labels of the whole training set.
        fraction: How much to set apart, in [0, 1); the number is rounded, and one training sample stays.
        seed: The run's seed.
        client: The client's number.

    Returns:
        Its training samples and its held-out samples, both in the order of `indices`.
    """
    count = min(math.floor(fraction * len(indices) + 0.5), len(indices) - 1)
    if count <= 0:
        return indices, indices[:0]
    held_out = np.zeros(len(indices), bool)
    held_out[stratified(labels[indices], count, numpy_stream(seed, "holdout", client))] = True
    return indices[~held_out], indices[held_out]


def _iid(labels: np.ndarray, clients: int, config: PartitionConfig, rng: np.random.Generator) -> Parts:
    return np.array_split(np.arange(len(labels)), clients)


def _dirichlet(labels: np.ndarray, clients: int, config: PartitionConfig, rng: np.random.Generator) -> Parts:
    """Splits each class in proportions drawn from a symmetric Dirichlet distribution."""
    if math.isinf(config.alpha):
        return _iid(labels, clients, config, rng)
    # Beyond these ends all goes to one client, or to all alike; there NumPy's draw would end in nan.
    alpha = np.full(clients, min(max(config.alpha, 1e-6), 1e12))
    parts: list[Parts] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ends = (np.cumsum(rng.dirichlet(alpha)) * len(members)).astype(int)
        for part, piece in zip(parts, np.split(members, ends[:-1])):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def _shards(labels: np.ndarray, clients: int, config: PartitionConfig, rng: np.random.Generator) -> Parts:
    """Sorts by label, cuts into equal shards (up to one sample), and deals those out."""
    shards = np.array_split(np.argsort(labels, kind="stable"), clients * config.shards_per_client)
    dealt = rng.permutation(len(shards)).reshape(clients, config.shards_per_client)
    return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]


def _pathological(labels: np.ndarray, clients: int, config: PartitionConfig, rng: np.random.Generator) -> Parts:
    """Deals classes out like cards, then splits each class evenly between its holders.

    The deck holds every class once and is shuffled anew when it runs out, so that all classes have about
    as many holders. Where the clients' hands together cannot hold every class they are made larger.
    """
    classes = np.unique(labels)
    size = max(min(config.classes_per_client, len(classes)), math.ceil(len(classes) / clients))
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
    parts: list[Parts] = [[] for _ in range(clients)]
    for label, clients_of_label in holders.items():
        pieces = np.array_split(np.flatnonzero(labels == label), len(clients_of_label))
        for client, piece in zip(clients_of_label, pieces):
            parts[client].append(piece)
    return [np.concatenate(part) for part in parts]


def _quantity(labels: np.ndarray, clients: int, config: PartitionConfig, rng: np.random.Generator) -> Parts:
    """Gives clients log-normally distributed numbers of samples, whatever their labels."""
    logarithms = rng.normal(0.0, config.sigma, clients)
    sizes = shares(np.exp(logarithms - logarithms.max()), len(labels), rng)
    return np.split(np.arange(len(labels)), np.cumsum(sizes)[:-1])


def _top_up(parts: Parts, rng: np.random.Generator) -> Parts:
    """Gives every empty client one sample, drawn from the client that has most at that moment."""
    parts = list(parts)
    sizes = np.array([len(part) for part in parts])
    for empty in np.flatnonzero(sizes == 0):
        donor = int(sizes.argmax())
        taken = int(rng.integers(sizes[donor]))
        parts[empty] = parts[donor][taken : taken + 1]
        parts[donor] = np.delete(parts[donor], taken)
        sizes[empty] = 1
        sizes[donor] -= 1
    return parts


_Dealer = Callable[[np.ndarray, int, PartitionConfig, np.random.Generator], Parts]
_DEALERS: dict[str, _Dealer] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
    "pathological": _pathological,
    "quantity": _quantity,
}
