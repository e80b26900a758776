"""Adaptive feature-wise dropout, as in SplitFC (Oh et al. 2023, arXiv 2307.10805)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compressors.interface import (
    FLOAT_BITS,
    BatchShape,
    Compressor,
    Floats,
    Integers,
    Layout,
    Payload,
    bits_for,
    draw_device,
    hard_labels,
    labels_of,
    outside_autocast,
)
from compressors.options import fraction


class SplitFC(Compressor):
    """Keep K of the N D features of a batch, those that vary more among its samples with a higher probability.

    A feature (a place in the flattened sample) is kept with probability p = min(1, c sigma), sigma being its standard
    deviation over the batch and c such that the probabilities sum to K; it is scaled by 1 / p, as dropout scales. All
    samples send the same K features, so that positions are sent once; gradients come back for these alone. Exactly K
    are kept (systematic sampling, which keeps each with its probability), where the paper draws each for itself: so
    the price is known from shapes. The paper quantises what is kept feature by feature with bits that it allots; here
    that is `quantizer=uniform quantizer.range=channel`, with bits that are the same for all.

    Args:
        rate: K / (N D), one over the paper's R.
        at_eval: whether evaluation drops features too.

    Raises:
        ValueError: for an option out of range.
    """

    needs_scores = False

    def __init__(self, *, rate: float = 0.1, at_eval: bool = False) -> None:
        super().__init__(at_eval=at_eval)
        self.rate = fraction("rate", rate)

    def options_for(self, ratio: float) -> dict[str, Any]:
        """K / (N D)."""
        return {"rate": ratio}

    def kept_features(self, features: int) -> int:
        """K for N * D features."""
        return max(1, int(self.rate * features + 0.5))

    def compress(
        self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None,
        offset: float | None = None,
    ) -> Payload:  # fmt: skip
        """Floats (B, 1, K); integers (K,), their places in the flattened sample, ascending.

        Args:
            z: activations (B, N, D).
            y: labels (B,).
            s: not used.
            generator: draws where sampling begins.
            offset: this beginning instead, in [0, 1).
        """
        with outside_autocast(z):
            flat = z.float().flatten(1)
            chance = keep_probabilities(flat.detach().std(0, correction=0), self.kept_features(flat.shape[1]))
            if offset is None:
                offset = float(torch.rand((), generator=generator, device=draw_device(generator)))
            places = systematic(chance, self.kept_features(flat.shape[1]), offset)
            kept = flat.index_select(1, places) / chance[places].float()
        return Payload((kept.unsqueeze(1),), (places,), labels=y)

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Activations (B, N, D), zero where nothing was sent, and hard labels (B,)."""
        kept, places = payload.floats[0].squeeze(1), payload.integers[0]
        flat = kept.new_zeros(shape.batch, shape.tokens * shape.width).index_copy(1, places, kept)
        return flat.view(shape.batch, shape.tokens, shape.width), hard_labels(payload)

    def layout(self, shape: BatchShape) -> Layout:
        """B K 32 + K ceil(log2 N D) + B ceil(log2 labels) bits up, B K 32 down."""
        features = shape.tokens * shape.width
        kept = self.kept_features(features)
        return Layout((Floats((shape.batch, 1, kept)),), (Integers.one_of(features, (kept,)),), labels_of(shape))

    def nominal_ratios(self, shape: BatchShape) -> tuple[float, float]:
        """K / (N D), and the places up."""
        index = bits_for(shape.tokens * shape.width)
        return self.rate * (1 + index / (FLOAT_BITS * shape.batch)), self.rate


def keep_probabilities(deviations: Tensor, count: int) -> Tensor:
    """min(1, c deviation), with c such that they sum to `count`: (F,), fp64.

    Where fewer than `count` features vary, the others share what is left evenly.
    """
    weights = deviations.double()
    few = (weights > 0).sum() < count
    weights = weights + few * weights.max().clamp(min=1e-6) * 1e-6
    ordered = weights.sort(descending=True).values
    rest = ordered.flip(0).cumsum(0).flip(0)  # sum of these and all smaller ones
    certain = torch.arange(len(ordered), device=weights.device)
    scale = (count - certain) / rest.clamp(min=torch.finfo(torch.float64).tiny)
    # The fewest certain ones for which the largest of the others has a probability of at most 1.
    at = (ordered * scale <= 1 + 1e-12).to(torch.int8).argmax(0, keepdim=True)
    return (weights * scale.gather(0, at)).clamp(max=1.0)


def systematic(chance: Tensor, count: int, offset: float) -> Tensor:
    """Places of exactly `count` features, ascending, each with its `chance`; these sum to `count`."""
    ends = chance.cumsum(0)
    ends = ends * (count / ends[-1])
    marks = torch.arange(count, device=chance.device, dtype=torch.float64) + offset
    return torch.searchsorted(ends, marks, right=True).clamp(max=len(chance) - 1)
