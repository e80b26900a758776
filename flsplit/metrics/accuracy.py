"""The share of samples whose largest logit is that of their label (scikit-learn's `accuracy_score`)."""

import torch
from torch import Tensor

from flsplit.metrics.interface import Metric


class Accuracy(Metric):
    """Counted on the device, which is asked for one number at the end."""

    def reset(self) -> None:
        """See `Metric`."""
        self._right: Tensor | None = None
        self._samples = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """See `Metric`."""
        if self._right is None:
            self._right = torch.zeros((), dtype=torch.int64, device=logits.device)
        self._right += (logits.argmax(1) == labels).sum()
        self._samples += len(labels)

    def compute(self) -> tuple[float, ...]:
        """See `Metric`."""
        assert self._right is not None
        return (int(self._right) / self._samples,)
