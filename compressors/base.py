"""No compression: activations and labels as they are, the paper's `base` (section 3.1)."""

import torch
from torch import Tensor

from compressors.interface import BatchShape, Compressor, Floats, Layout, Payload, hard_labels, labels_of


class Base(Compressor):
    """Send everything; the price that all others are measured against."""

    needs_scores = False

    def __init__(self, *, at_eval: bool = False) -> None:
        super().__init__(at_eval=at_eval)

    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        """Floats (B, N, D), and the labels."""
        return Payload((z.float(),), labels=y)

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Activations (B, N, D) and hard labels (B,)."""
        return payload.floats[0], hard_labels(payload)

    def layout(self, shape: BatchShape) -> Layout:
        """B (N D 32 + ceil(log2 L)) bits up, B N D 32 down."""
        activations = (shape.batch, shape.tokens, shape.width)
        return Layout((Floats(activations),), labels=labels_of(shape))

    def nominal_ratios(self, shape: BatchShape) -> tuple[float, float]:
        """1 both ways."""
        return 1.0, 1.0
