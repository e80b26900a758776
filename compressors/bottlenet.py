"""BottleNet++: a small trained encoder and decoder around the link, token by token.

As the authors of arXiv 2509.15058 ran it (section 5.2, Table 1): fully connected layers whose widths fall in
even steps from D to d' and rise again, trained with the rest. The original (Shao and Zhang, 2020) is
convolutional.

Legend of shapes: B samples, N tokens, D width, d' width sent, L labels.
"""

from typing import Self

import torch
from torch import Tensor, nn

from compressors.interface import (
    BatchShape,
    Compressor,
    Floats,
    Layout,
    Payload,
    draw_device,
    hard_labels,
    labels_of,
    outside_autocast,
)
from compressors.options import fraction


class BottleNet(Compressor):
    """Send every token as d' = round(ratio D) numbers.

    Args:
        ratio: d'/D, in (0, 1].
        final_relu: whether the decoder ends in a ReLU, as the authors' does; the server then sees tokens
            without negative values.
        at_eval: whether evaluation runs through encoder and decoder; without, the server-side model meets
            activations that it was not trained on.

    Raises:
        ValueError: for a ratio out of range.
    """

    needs_scores = False

    def __init__(self, *, ratio: float = 0.1, final_relu: bool = True, at_eval: bool = True) -> None:
        super().__init__(at_eval=at_eval)
        self.ratio = fraction("ratio", ratio)
        self.final_relu = final_relu

    def sent_width(self, width: int) -> int:
        """d' for tokens of width D."""
        return max(1, int(self.ratio * width + 0.5))

    def bind(
        self,
        *,
        tokens: int,
        width: int,
        prefix_tokens: int = 1,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Create the encoder (`client_half`) and the decoder (`server_half`), on the CPU.

        PyTorch's default initialisation draws from the global generator; that one is seeded from `generator`
        for the time being, so that the weights depend on nothing else and nothing else on them.
        """
        super().bind(tokens=tokens, width=width, prefix_tokens=prefix_tokens, generator=generator)
        if generator is None:
            self._create(width)
        else:
            seed = torch.randint(2**63 - 1, (), generator=generator, device=draw_device(generator))
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int(seed))  # torch.manual_seed would seed CUDA, too
                self._create(width)
        return self

    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        """Floats (B, N, d'), and the labels.

        Raises:
            ValueError: if there is no encoder yet.
        """
        encoder = _bound(self.client_half)
        with outside_autocast(z):
            return Payload((encoder(z.float()),), labels=y)

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Activations (B, N, D) and hard labels (B,).

        Raises:
            ValueError: if there is no decoder yet.
        """
        decoder, code = _bound(self.server_half), payload.floats[0]
        with outside_autocast(code):
            return decoder(code), hard_labels(payload)

    def layout(self, shape: BatchShape) -> Layout:
        """B N d' values and B labels."""
        code = (shape.batch, shape.tokens, self.sent_width(shape.width))
        return Layout((Floats(code),), labels=labels_of(shape))

    def nominal_ratios(self, shape: BatchShape) -> tuple[float, float]:
        """d'/d both ways, as requested."""
        return self.ratio, self.ratio

    def _create(self, width: int) -> None:
        sent = self.sent_width(width)
        middle = (width + sent) // 2
        self.client_half = nn.Sequential(nn.Linear(width, middle), nn.ReLU(), nn.Linear(middle, sent))
        decoder = [nn.Linear(sent, middle), nn.ReLU(), nn.Linear(middle, width)]
        self.server_half = nn.Sequential(*decoder, *([nn.ReLU()] if self.final_relu else []))


def _bound(half: nn.Module | None) -> nn.Module:
    if half is None:
        raise ValueError("bottlenet has no encoder and decoder yet: call bind(tokens=..., width=...) first")
    return half
