"""How far a partition is from IID: measures of label skew and of quantity skew.

The functions take the samples of each label at each client as a (clients, labels) array of counts. Below, p_k(y) is
the share of label y among the samples of client k, p(y) its share among all samples, K the number of clients and L
the number of labels. The label measures give every client the same weight, however many samples it has. A client of
few samples cannot hold all labels in their shares, so that it looks skewed even where samples were dealt at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number that each client has, summarised over clients."""

    mean: float
    min: float
    median: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Skew:
    """Measures of one partition.

    Attributes:
        clients: How many clients there are.
        labels: How many labels the partition names.
        entropy: `label_entropy` over clients; None where there is only one label.
        pairwise_distance: `pairwise_distance`; None where fewer than two clients have samples.
        global_distance: `global_distance` over clients.
        samples: Samples per client.
        gini: `gini` of the samples per client.
        effective: `effective_classes` over clients.
        lacking: clients without a sample of some label.
    """

    clients: int
    labels: int
    entropy: Spread | None
    pairwise_distance: float | None
    global_distance: Spread
    samples: Spread
    gini: float
    effective: Spread
    lacking: int

    @property
    def figures(self) -> dict[str, float | int | None]:
        """Numbers for a run's summary."""
        return {
            "effective_classes": self.effective.mean, "label_divergence": self.global_distance.mean,
            "label_distance": self.pairwise_distance, "clients_lacking_a_class": self.lacking,
            "samples_ratio": self.samples.max / self.samples.min if self.samples.min else None, "gini": self.gini,
        }  # fmt: skip


def count_table(partition: pd.DataFrame) -> pd.DataFrame:
    """Samples as a table of labels (rows) by clients (columns), zeros filled in."""
    table = partition.pivot_table(index="label", columns="client", values="count", aggfunc="sum", fill_value=0)
    return table.astype("int64").sort_index().sort_index(axis=1)


def label_shares(counts: np.ndarray) -> np.ndarray:
    """Each client's label distribution, p_k(y) = n_k(y) / sum_y n_k(y).

    Args:
        counts: (clients, labels) samples, none negative.

    Returns:
        (clients, labels) shares; every row sums to 1.

    Raises:
        ValueError: There is no client or no label, or a client has no samples and so no distribution.
    """
    counts = np.asarray(counts, dtype=float)
    if counts.ndim != 2 or counts.size == 0:
        raise ValueError(f"counts of shape {counts.shape}: need (clients, labels), at least one of each")
    sizes = counts.sum(axis=1, keepdims=True)
    if not (sizes > 0).all():
        raise ValueError(f"client in row {int(np.argmin(sizes > 0))} has no samples, so no label distribution")
    return counts / sizes


def label_entropy(counts: np.ndarray) -> np.ndarray:
    """Entropy of each client's labels, relative to the largest possible.

    H_k = -sum_y p_k(y) log p_k(y) / log L, with 0 log 0 = 0. It is 0 for a client of one label only, and 1 for one
    that holds all L labels equally often.

    Source: Shannon 1948, "A Mathematical Theory of Communication"; divided by log L as in Pielou 1966, "The
    Measurement of Diversity in Different Types of Biological Collections".

    Args:
        counts: (clients, labels) samples; every client has some.

    Returns:
        (clients,) values in 0..1; nan where there is only one label, as log L is 0 then.
    """
    shares = label_shares(counts)
    if shares.shape[1] == 1:
        return np.full(len(shares), np.nan)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.clip(0.0 - (shares * logarithms).sum(axis=1) / np.log(shares.shape[1]), 0.0, 1.0)


def effective_classes(counts: np.ndarray) -> np.ndarray:
    """As how many equally frequent labels each client's labels are diverse.

    E_k = exp(-sum_y p_k(y) log p_k(y)). It is 1 for a client of one label only, and L for one that holds all L labels
    equally often.

    Source: Hill 1973, "Diversity and Evenness", order 1.

    Args:
        counts: (clients, labels) samples; every client has some.

    Returns:
        (clients,) values in 1..L.
    """
    shares = label_shares(counts)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.clip(np.exp(-(shares * logarithms).sum(axis=1)), 1.0, shares.shape[1])


def global_distance(counts: np.ndarray) -> np.ndarray:
    """Total variation distance of each client's label distribution from that of all samples together.

    D_k = 1/2 sum_y |p_k(y) - p(y)|, where p(y) = sum_k n_k(y) / n. It is the share of the client's samples that would
    have to change their label for its labels to be as in the whole: 0 where they are so already, and at most
    1 - min_y p(y), reached by a client that holds only the rarest label.

    Source: Zhao et al. 2018, "Federated Learning with Non-IID Data" (arXiv 1806.00582), whose earth mover's distance
    between a client and the population is 2 D_k, from 0 to 2.

    Args:
        counts: (clients, labels) samples; every client has some.

    Returns:
        (clients,) values in 0..1.
    """
    shares = label_shares(counts)
    whole = label_shares(np.asarray(counts, dtype=float).sum(axis=0, keepdims=True))
    return np.clip(np.abs(shares - whole).sum(axis=1) / 2, 0.0, 1.0)


def pairwise_distance(counts: np.ndarray) -> float | None:
    """Total variation distance between the label distributions of two clients, averaged over all pairs.

    D = 2 / (K (K - 1)) sum_{j<k} D_jk, where D_jk = 1/2 sum_y |p_j(y) - p_k(y)|. It is 0 where all clients have the
    same label distribution, and 1 where no two clients have a label in common.

    The pairs are not visited: with the shares of a label in ascending order, the i-th of K (from 1) is the larger one
    in i - 1 pairs and the smaller one in K - i, so that sum_{j<k} |p_j(y) - p_k(y)| = sum_i (2i - K - 1) p_(i)(y).

    Source: Levin and Peres 2017, "Markov Chains and Mixing Times", proposition 4.2 (D_jk).

    Args:
        counts: (clients, labels) samples; every client has some.

    Returns:
        A value in 0..1; None for a single client, which has no pair.
    """
    shares = label_shares(counts)
    if len(shares) == 1:
        return None
    pairs = len(shares) * (len(shares) - 1) / 2
    return float(np.clip(_sum_of_differences(shares).sum() / 2 / pairs, 0.0, 1.0))


def gini(sizes: np.ndarray) -> float:
    """Gini coefficient of the samples per client.

    G = sum_{j<k} |n_j - n_k| / (K sum_k n_k): half the mean difference between two clients' sizes, relative to the
    mean size. It is 0 where all clients hold equally many samples, and 1 - 1/K where one holds all. Unlike the ratio
    of the largest to the smallest client, it does not hang on a single small client.

    Source: Gini 1912, "Variabilità e mutabilità"; in this form Damgaard and Weiner 2000, "Describing Inequality in
    Plant Size or Fecundity".

    Args:
        sizes: (clients,) samples per client.

    Returns:
        A value from 0 to below 1.

    Raises:
        ValueError: No client has any samples.
    """
    sizes = np.asarray(sizes, dtype=float)
    if not sizes.sum() > 0:
        raise ValueError("no client has any samples")
    return float(_sum_of_differences(sizes[:, None])[0] / (len(sizes) * sizes.sum()))


def skew(partition: pd.DataFrame) -> Skew:
    """All measures of a partition.

    A client that is listed without samples counts as one of size 0; it has no labels to measure.

    Args:
        partition: Columns `client`, `label` and `count`, as in a run's `partition.parquet`; each label counts as one
            of the L labels, and each client as one of the K clients, where it is listed.

    Raises:
        ValueError: The partition has no samples.
    """
    table = count_table(partition).to_numpy().T
    sizes = table.sum(axis=1)
    if not sizes.any():
        raise ValueError("the partition has no samples")
    held = table[sizes > 0]
    return Skew(
        clients=table.shape[0],
        labels=table.shape[1],
        entropy=_spread(label_entropy(held)) if table.shape[1] > 1 else None,
        pairwise_distance=pairwise_distance(held),
        global_distance=_spread(global_distance(held)),
        samples=_spread(sizes),
        gini=gini(sizes),
        effective=_spread(effective_classes(held)),
        lacking=int((table == 0).any(axis=1).sum()),
    )


def _sum_of_differences(values: np.ndarray) -> np.ndarray:
    """For each column, the absolute differences summed over all pairs of rows; see `pairwise_distance`."""
    rows = len(values)
    weights = 2 * np.arange(1, rows + 1) - rows - 1
    return np.maximum(weights @ np.sort(values, axis=0), 0.0)


def _spread(values: np.ndarray) -> Spread:
    return Spread(
        mean=float(np.mean(values)),
        min=float(np.min(values)),
        median=float(np.median(values)),
        max=float(np.max(values)),
    )
