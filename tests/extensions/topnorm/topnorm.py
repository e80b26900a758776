"""Top-K under another name, with one option of its own and none of those that other compressors have."""

from compressors.topk import TopK


class TopNorm(TopK):
    """Keep the largest values of every sample.

    Args:
        ratio: the share of values kept.
    """

    def __init__(self, *, ratio: float = 0.1) -> None:
        super().__init__(rate=ratio)
