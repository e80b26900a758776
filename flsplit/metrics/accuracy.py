"""The share of samples whose largest logit is that of their label (scikit-learn's `accuracy_score`)."""

import torch
from torch import Tensor

from flsplit.metrics.interface import Metric


class Accuracy(Metric):
    """Counted on the device, which is asked for one number at the end; NaN where a logit is not finite."""

    def reset(self) -> None:
        """See `Metric`."""
        self._right: Tensor | None = None
        self._samples = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """See `Metric`."""
        right = (logits.argmax(1) == labels).sum().double()
        right = torch.where(torch.isfinite(logits).all(), right, torch.nan)
        self._right = right if self._right is None else self._right + right
        self._samples += len(labels)

    def compute(self) -> tuple[float, ...]:
        """See `Metric`."""
        assert self._right is not None
        return (float(self._right) / self._samples,)
