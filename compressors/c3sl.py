"""C3-SL: samples bound to random keys by circular convolution and added up, R into one.

Hsieh et al., MLSP 2022, as the authors of arXiv 2509.15058 ran it (section 5.2, Table 1): each of R
consecutive samples is convolved with its key, the sum is sent, and circular correlation with a key recovers
that sample amid the noise of the others. Nothing is normalised.

Legend of shapes: B samples, N tokens, D width, L labels, R samples per group.
"""

from typing import Any, Self

import torch
from torch import Tensor

from compressors.interface import BatchShape, Compressor, Floats, Layout, Payload, draw_device, hard_labels, labels_of


class C3SL(Compressor):
    """Send R samples as one.

    Args:
        group: R, samples per group, >= 1; it must divide the batch size.
        at_eval: whether evaluation is grouped too.

    Raises:
        ValueError: for a group below 1.
    """

    needs_scores = False

    def __init__(self, *, group: int = 4, at_eval: bool = False) -> None:
        super().__init__(at_eval=at_eval)
        if group < 1:
            raise ValueError(f"compressor.group must be at least 1, got {group}")
        self.group = self.group_size = group
        self.keys: Tensor | None = None
        self._spectra: dict[torch.device, Tensor] = {}

    def options_for(self, ratio: float) -> dict[str, Any]:
        """R = 1/ratio.

        Raises:
            ValueError: if that is no whole number.
        """
        group = round(1 / ratio)
        if abs(group * ratio - 1) > 1e-3:
            raise ValueError(f"c3sl needs a ratio of 1/R with a whole R, such as {1 / group:.4g}, got {ratio:g}")
        return {"group": group}

    def bind(
        self,
        *,
        tokens: int,
        width: int,
        prefix_tokens: int = 1,
        generator: torch.Generator | None = None,
        keys: Tensor | None = None,
    ) -> Self:
        """Fix the keys for the run: normal, of unit norm.

        Args:
            tokens: N.
            width: D.
            prefix_tokens: not read.
            generator: draws the keys.
            keys: these keys instead, (R, N * D).

        Raises:
            ValueError: if `keys` has another shape.
        """
        super().bind(tokens=tokens, width=width, prefix_tokens=prefix_tokens, generator=generator)
        shape = (self.group, tokens * width)
        if keys is None:
            normal = torch.randn(shape, generator=generator, device=draw_device(generator))
            keys = normal / normal.norm(dim=1, keepdim=True)
        elif keys.shape != shape:
            raise ValueError(f"keys must have shape {shape}, got {tuple(keys.shape)}")
        self.keys = keys.detach().float()
        self._spectra = {}
        return self

    def check(self, *, batch_size: int, tokens: int | None = None, width: int | None = None) -> None:
        """Refuse a batch size that groups of R do not fill."""
        if batch_size % self.group:
            raise ValueError(
                f"compressor.group must divide the batch size, got group {self.group} and batch size {batch_size}"
            )

    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        """Floats (B / R, N, D), and the labels. A batch of fewer than R is one group of its own.

        Raises:
            ValueError: if B is above R and not a multiple of it, or the keys are missing.
        """
        batch, tokens, width = z.shape
        members = min(batch, self.group)
        if batch % members:
            raise ValueError(f"compressor.group is {self.group}, but the batch of {batch} is no multiple of it")
        keys = self._key_spectra(z.device)[:members]
        spectra = torch.fft.rfft(z.float().reshape(-1, members, tokens * width))
        sums = torch.fft.irfft((spectra * keys).sum(1), n=tokens * width)
        return Payload((sums.view(-1, tokens, width),), labels=y)

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Noisy activations (B, N, D) and hard labels (B,)."""
        sums = payload.floats[0].flatten(1)
        keys = self._key_spectra(sums.device)[: min(shape.batch, self.group)]
        spectra = torch.fft.rfft(sums).unsqueeze(1) * keys.conj()
        z = torch.fft.irfft(spectra, n=sums.shape[1])
        return z.view(shape.batch, shape.tokens, shape.width), hard_labels(payload)

    def layout(self, shape: BatchShape) -> Layout:
        """ceil(B / R) samples and B labels."""
        sums = (-(-shape.batch // self.group), shape.tokens, shape.width)
        return Layout((Floats(sums),), labels=labels_of(shape))

    def nominal_ratios(self, shape: BatchShape) -> tuple[float, float]:
        """1/R both ways."""
        return 1 / self.group, 1 / self.group

    def _key_spectra(self, device: torch.device) -> Tensor:
        """Fourier transform of the keys (R, N * D // 2 + 1), computed once per device."""
        if self.keys is None:
            raise ValueError("c3sl has no keys yet: call bind(tokens=..., width=...) first")
        if device not in self._spectra:
            self._spectra[device] = torch.fft.rfft(self.keys.to(device))
        return self._spectra[device]
