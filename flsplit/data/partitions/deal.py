"""Deals samples out to clients by any partition: none goes to two clients, and no client is left without any.

The samples are first shuffled, then dealt out by the partition, then a top-up gives each empty client one sample of
the largest one.

`iid`, `dirichlet` and `shards` give what flwr-datasets' `IidPartitioner`, `DirichletPartitioner` (without
self-balancing) and `ShardPartitioner` give for the same shuffled labels and random numbers, sample by sample,
wherever those accept the request and use all samples; the tests hold them to it. They are written out here
because those refuse valid requests (an infinite alpha, more shards than samples), drop what does not divide
evenly, and would add more than a second of imports to the start of every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from flsplit.data.errors import DataError
from flsplit.data.partitions.interface import Partition, Parts, Samples
from flsplit.data.subset import stratified
from flsplit.errors import options_of_the_user
from flsplit.streams import numpy_stream


def deal(samples: Samples, clients: int, partition: Partition, *, seed: int) -> list[np.ndarray]:
    """Deals the samples out.

    Args:
        samples: n of them.
        clients: How many clients, at most n.
        partition: How.
        seed: The run's seed.

    Returns:
        For each client its positions in `samples`, ascending.

    Raises:
        UserError: The numbers do not fit, or a partition of the user's own does not keep to its contract.
    """
    if clients < 1:
        raise DataError(f"clients={clients}: must be 1 or more")
    if clients > len(samples):
        raise DataError(f"clients={clients}: there are only {len(samples)} training samples, and each needs one")
    with options_of_the_user():
        partition.check(samples, clients)
    rng = numpy_stream(seed, "partition")
    order = rng.permutation(len(samples))
    dealt = partition.deal(samples.at(order), clients, rng)
    if not isinstance(dealt, Iterable):
        raise DataError(
            f"partition: {type(partition).__module__} gave {type(dealt).__name__}; deal must return an array of "
            "positions for each client"
        )
    parts = [np.asarray(part) for part in dealt]
    _hold_to_contract(partition, parts, len(samples), clients)
    return [np.sort(part) for part in _top_up([order[part.astype(np.int64)] for part in parts], rng)]


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


def _hold_to_contract(partition: Partition, parts: Parts, samples: int, clients: int) -> None:
    where = f"partition: {type(partition).__module__}"
    if len(parts) != clients:
        raise DataError(f"{where} gave {len(parts)} parts for {clients} clients; deal must return one for each")
    if any(part.ndim != 1 for part in parts):
        raise DataError(f"{where} gave parts of shapes {[part.shape for part in parts]}; each must be (n,)")
    kinds = {part.dtype.kind for part in parts if len(part)}
    if "b" in kinds:
        raise DataError(f"{where} gave a mask of booleans; a part must be positions, such as np.flatnonzero(mask)")
    given = np.concatenate(parts)
    if len(given) and not (kinds <= {"i", "u"} and given.min() >= 0 and given.max() < samples):
        raise DataError(f"{where} gave something else than positions from 0 to {samples - 1}")
    if len(np.unique(given)) < len(given):
        raise DataError(f"{where} gave a sample twice; each may go to one client only")
    if not len(given):
        raise DataError(f"{where} gave no client any sample")


def _top_up(parts: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Gives every empty client one sample, drawn from the client that has most at that moment."""
    sizes = np.array([len(part) for part in parts])
    for empty in np.flatnonzero(sizes == 0):
        donor = int(sizes.argmax())
        taken = int(rng.integers(sizes[donor]))
        parts[empty] = parts[donor][taken : taken + 1]
        parts[donor] = np.delete(parts[donor], taken)
        sizes[empty] = 1
        sizes[donor] -= 1
    return parts
