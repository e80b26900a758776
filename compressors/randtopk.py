"""RandTopK: Top-K that now and then sends a smaller value, so that none is starved.

Zheng et al., arXiv 2305.18469, as the authors of arXiv 2509.15058 ran it (section 5.2, Table 1): K of the
N * D values of a sample are drawn without replacement, the K largest sharing a probability of 1 - alpha
evenly, the rest sharing alpha.

Legend of shapes: B samples, N tokens, D width, K values kept per sample.
"""

import torch
from torch import Tensor

from compressors import noise
from compressors.interface import Payload, onto
from compressors.options import fraction
from compressors.topk import TopK


class RandTopK(TopK):
    """Draw the K = round(rate N D) values that are sent; what they cost is as in Top-K.

    Args:
        rate: the share of values kept, in (0, 1].
        alpha: probability of the values outside the top K, in [0, 1); with 0 it is Top-K.
        index_bits: price of a position, see `TopK`.
        at_eval: whether evaluation is sparse too.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        *,
        rate: float = 0.1,
        alpha: float = 0.1,
        index_bits: str = "per_sample",
        at_eval: bool = False,
    ) -> None:
        super().__init__(rate=rate, index_bits=index_bits, at_eval=at_eval)
        self.alpha = fraction("alpha", alpha, zero=True, one=False)

    def compress(
        self,
        z: Tensor,
        y: Tensor,
        s: Tensor | None,
        *,
        generator: torch.Generator | None = None,
        draws: Tensor | None = None,
    ) -> Payload:
        """Floats (B, K); integers (B, K), their positions in the flattened sample, and the labels.

        Args:
            z: activations (B, N, D).
            y: labels (B,).
            s: not read.
            generator: gives the noise its key (see `compressors.noise`).
            draws: this noise instead, Exp(1) numbers of shape (B, N * D).

        Raises:
            ValueError: if `draws` has another shape.
        """
        flat = z.float().flatten(1)
        if draws is None:
            draws = noise.exponential(flat.shape, generator, z.device)
        elif draws.shape != flat.shape:
            raise ValueError(f"draws must have shape {tuple(flat.shape)}, got {tuple(draws.shape)}")
        return self._pick(flat, y, self._draw(flat.detach(), onto(draws, z.device)))

    def _draw(self, flat: Tensor, draws: Tensor) -> Tensor:
        """Positions drawn without replacement: (B, N * D) -> (B, K).

        A race: entry i arrives at time E_i / p_i with E_i ~ Exp(1), and the first K to arrive are a draw
        without replacement with probabilities p.
        """
        features = flat.shape[1]
        kept = self.kept_values(features)
        rest = self.alpha / (features - kept) if kept < features else 0.0
        probability = torch.full_like(flat, rest).scatter(1, self._largest(flat), (1 - self.alpha) / kept)
        speed = probability / draws.clamp_min(torch.finfo(draws.dtype).tiny)
        return speed.topk(kept, dim=1, sorted=False).indices
