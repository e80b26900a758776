"""The share of samples whose label is among the five largest logits (scikit-learn's `top_k_accuracy_score`)."""

import numpy as np

from flsplit.metrics.interface import Collected

K = 5


class Top5(Collected):
    """1 where there are no more than five classes."""

    def of(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """See `Collected`."""
        from sklearn.metrics import top_k_accuracy_score

        if len(self.classes) <= K:
            return 1.0
        return float(top_k_accuracy_score(labels, logits, k=K, labels=np.arange(len(self.classes))))
