"""How much of what all clients may send is whose (`budget.allocation`)."""

from __future__ import annotations

import numpy as np

ALLOCATIONS = ("equal", "diversity")


def by_diversity(ratio: float, diversity: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Compression ratios in proportion to how diverse clients' labels are, with the total that one ratio gives.

    r_k = c E_k, with c such that sum_k n_k r_k = ratio sum_k n_k. Who would have more than 1 has 1, and what is left
    over is shared out among the others in the same proportion. The total is of ratios as asked for: what is sent has
    whole clusters, tokens or values (ADC rounds both its factors down, for each client).

    Args:
        ratio: of all together, in (0, 1].
        diversity: E_k of every client, at least 1, such as its effective number of classes.
        samples: n_k that every client trains on in a round.

    Returns:
        (clients,) ratios in (0, 1]; `ratio` for a client without samples.
    """
    ratios, free = np.full(len(samples), ratio), samples > 0
    left = ratio * samples.sum()
    while free.any():
        found = left / (samples * diversity)[free].sum() * diversity
        over = free & (found > 1)
        if not over.any():
            ratios[free] = found[free]
            break
        ratios[over], free = 1.0, free & ~over
        left -= samples[over].sum()
    return ratios
