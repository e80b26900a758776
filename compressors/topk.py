"""Top-K sparsification: per sample, the values that are largest in magnitude, with their positions.

Top-K of arXiv 2509.15058 (section 5.2, Table 1), as its authors ran it: over all N * D values of a sample;
whatever is not sent is zero at the server and gets no gradient.

Legend of shapes: B samples, N tokens, D width, L labels, K values kept per sample.
"""

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
    hard_labels,
    labels_of,
)
from compressors.options import choice, fraction

INDEX_BITS = ("per_sample", "per_batch")


class TopK(Compressor):
    """Keep the K = round(rate N D) largest values of every sample.

    Args:
        rate: the share of values kept, in (0, 1].
        index_bits: price of a position: `per_sample` ceil(log2(N D)) bits, Table 1 rounded up, or `per_batch`
            ceil(log2(B N D)), as the authors' code counts.
        at_eval: whether evaluation is sparse too.

    Raises:
        ValueError: for an option out of range.
    """

    needs_scores = False

    def __init__(self, *, rate: float = 0.1, index_bits: str = "per_sample", at_eval: bool = False) -> None:
        super().__init__(at_eval=at_eval)
        self.rate = fraction("rate", rate)
        self.index_bits = choice("index_bits", index_bits, INDEX_BITS)

    def options_for(self, ratio: float) -> dict[str, Any]:
        """k/D; indices come on top, as for all."""
        return {"rate": ratio}

    def kept_values(self, features: int) -> int:
        """K for N * D features per sample."""
        return max(1, int(self.rate * features + 0.5))

    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        """Floats (B, K); integers (B, K), their positions in the flattened sample, and the labels."""
        flat = z.float().flatten(1)
        return self._pick(flat, y, self._largest(flat.detach()))

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Activations (B, N, D), zero where nothing was sent, and hard labels (B,)."""
        values, positions = payload.floats[0], payload.integers[0]
        flat = values.new_zeros(shape.batch, shape.tokens * shape.width).scatter(1, positions.view_as(values), values)
        return flat.view(shape.batch, shape.tokens, shape.width), hard_labels(payload)

    def layout(self, shape: BatchShape) -> Layout:
        """B K values, B K positions at the chosen price, B labels."""
        features = shape.tokens * shape.width
        kept = self.kept_values(features)
        span = features * shape.batch if self.index_bits == "per_batch" else features
        sent = (shape.batch, kept)
        return Layout((Floats(sent),), (Integers(sent, bits_for(span), below=features),), labels_of(shape))

    def nominal_ratios(self, shape: BatchShape) -> tuple[float, float]:
        """k/D (1 + ceil(log2 D)/32) up and k/D down, with the paper's D = N * D."""
        index = bits_for(shape.tokens * shape.width)
        return self.rate * (1 + index / FLOAT_BITS), self.rate

    def _largest(self, flat: Tensor) -> Tensor:
        """Positions of the K largest magnitudes: (B, N * D) -> (B, K)."""
        return flat.abs().topk(self.kept_values(flat.shape[1]), dim=1, sorted=False).indices

    @staticmethod
    def _pick(flat: Tensor, y: Tensor, positions: Tensor) -> Payload:
        """Payload of the values at `positions` (B, K); the gradient reaches these only."""
        return Payload((flat.gather(1, positions),), (positions,), labels=y)
