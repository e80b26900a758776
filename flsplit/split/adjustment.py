"""A loss that a client's skewed labels do not bend: its logits are adjusted by how often it has each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from compressors import onto


class LogitAdjustment:
    """Adds tau log pi_k to the logits of client k's samples before the cross-entropy.

    So the model learns what tells classes from one another rather than which of them client k has (Menon et al., ICLR
    2021, arXiv 2007.07314; for each client in federated learning Zhang et al., ICML 2022, arXiv 2209.00189, and in
    split-federated learning SCALA, arXiv 2405.04875). pi_k are the shares of the classes in the samples that k trains
    on, with one added to every class's count: of a class that it does not have, the logarithm stays finite. Tests and
    predictions are those of the logits as they are.

    Args:
        tau: the adjustment's strength; 1 in the papers.
        counts: training samples of each class, (L,), of a client.
    """

    def __init__(self, tau: float, counts: Callable[[int], np.ndarray]) -> None:
        self._tau, self._counts = tau, counts
        self._terms: dict[int, Tensor] = {}

    def __call__(self, logits: Tensor, clients: Sequence[int], rows: Sequence[slice]) -> Tensor:
        """Adjusted logits.

        Args:
            logits: (T, L), of several clients' targets.
            clients: whose they are.
            rows: where each has its own.
        """
        parts = [logits[at] + self._term(client, logits.device) for client, at in zip(clients, rows, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _term(self, client: int, device: torch.device) -> Tensor:
        if client not in self._terms:
            counts = self._counts(client).astype(np.float64) + 1
            self._terms[client] = onto(torch.from_numpy(self._tau * np.log(counts / counts.sum())).float(), device)
        return self._terms[client]
