"""Which clients take part in a round (`sampling`), where not all do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

POWER = 10.0  # how strongly `balanced` prefers clients that even labels out


def uniform(stream: np.random.Generator, able: Sequence[int], count: int) -> list[int]:
    """`count` of the clients that are able, each as likely as any other."""
    return [able[at] for at in stream.choice(len(able), count, replace=False)]


def balanced(
    stream: np.random.Generator, able: Sequence[int], count: int, labels: Callable[[int], np.ndarray]
) -> list[int]:
    """`count` of the clients that are able, whose samples together have all classes about as often.

    They are drawn one after another, each with a probability in proportion to 1 / imbalance^10 of all drawn so far
    together with it (Fed-CBS, Zhang et al., ICML 2023, arXiv 2209.15245, Section 4, without its bonus for clients that
    have been drawn seldom, and with one power for all draws). The imbalance is the sum over classes of (share - 1/L)^2.
    Counts of labels are priced when a client first takes part; those of clients that never do are not.

    Args:
        stream: of random numbers.
        able: clients.
        count: at most as many.
        labels: training samples of each class, (L,), of a client.
    """
    left, chosen = list(able), []
    held = np.stack([labels(client) for client in able]).astype(np.float64)
    together = np.zeros(held.shape[1])
    for _ in range(count):
        found = together + held
        shares = found / np.maximum(1.0, found.sum(1, keepdims=True))
        imbalance = ((shares - 1 / held.shape[1]) ** 2).sum(1)
        likely = ((imbalance.min() + 1e-12) / (imbalance + 1e-12)) ** POWER
        at = int(stream.choice(len(left), p=likely / likely.sum()))
        together += held[at]
        chosen.append(left.pop(at))
        held = np.delete(held, at, axis=0)
    return chosen
