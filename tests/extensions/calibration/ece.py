"""Expected calibration error (Naeini et al., AAAI 2015): how far confidence and accuracy lie apart."""

import numpy as np

from flsplit.metrics import Collected

BINS = 15  # of equal width, each open on its left: Guo et al., ICML 2017


class Ece(Collected):
    """The mean over samples of |accuracy - confidence|, bin by bin of the confidence."""

    higher_is_better = False

    def of(self, logits, labels):
        powers = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float64))
        confidence = powers.max(1) / powers.sum(1)
        right = logits.argmax(1) == labels
        bins = np.ceil(confidence * BINS).astype(int)
        gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in np.unique(bins)]
        return sum(gaps) / len(labels)
