"""The mean of the classes' F1 scores (scikit-learn's `f1_score` with `average="macro"`)."""

import numpy as np

from flsplit.metrics.interface import Collected


class MacroF1(Collected):
    """Over the classes that occur, as labels or as answers; that of a class without a right answer is 0."""

    def of(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """See `Collected`."""
        from sklearn.metrics import f1_score

        return float(f1_score(labels, logits.argmax(1), average="macro", zero_division=0))
