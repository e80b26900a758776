"""Each class's accuracy: the share of its samples that are recognised (scikit-learn's `recall_score`, no average)."""

import numpy as np

from flsplit.metrics.interface import Collected


class PerClass(Collected):
    """A column for each class, `recall_CLASS`; NaN where it has no samples."""

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Metric`."""
        return tuple(f"recall_{name}" for name in self.classes)

    def of(self, logits: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        """See `Collected`."""
        from sklearn.metrics import recall_score

        every = np.arange(len(self.classes))
        return tuple(recall_score(labels, logits.argmax(1), labels=every, average=None, zero_division=np.nan))
