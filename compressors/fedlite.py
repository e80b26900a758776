"""FedLite (Wang et al. 2022, arXiv 2201.11865): activations as words of a codebook that is made anew for each batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compressors.interface import (
    BatchShape,
    Compressor,
    Floats,
    Integers,
    Layout,
    Payload,
    hard_labels,
    labels_of,
    onto,
    outside_autocast,
)
from compressors.kmeans import kmeans


class FedLite(Compressor):
    """Product quantisation: K-means over pieces of tokens, and the number of its nearest codeword for each piece.

    Every token is cut into `pieces`; piece j of all tokens of all samples belongs to codebook floor(j groups / pieces).
    Gradients come back for the quantised activations, whole (32 bits each), and pass to the activations themselves,
    with the paper's correction: lambda (z - z~), the gradient of lambda / 2 |z - z~|^2 for each sample, is added, so
    that activations are drawn towards what can be sent.

    Args:
        pieces: q / N, of a token; it must divide D.
        codewords: L, of a codebook; fewer where a batch has fewer pieces.
        groups: R, codebooks; it must divide `pieces`.
        correction: lambda, at least 0.
        iterations: of K-means at most.
        at_eval: whether evaluation is quantised too.

    Raises:
        ValueError: for an option out of range.
    """

    needs_scores = False

    def __init__(
        self, *, pieces: int = 16, codewords: int = 16, groups: int = 1, correction: float = 1e-3, iterations: int = 10,
        at_eval: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(at_eval=at_eval)
        for key, value in (
            ("pieces", pieces),
            ("codewords", codewords),
            ("groups", groups),
            ("iterations", iterations),
        ):
            if value < 1:
                raise ValueError(f"compressor.{key} must be at least 1, got {value}")
        if pieces % groups:
            raise ValueError(f"compressor.groups must divide compressor.pieces ({pieces}), got {groups}")
        if not 0 <= correction < float("inf"):
            raise ValueError(f"compressor.correction must be a number of at least 0, got {correction}")
        self.pieces, self.codewords, self.groups = pieces, codewords, groups
        self.correction, self.iterations = correction, iterations

    def check(self, *, batch_size: int, tokens: int | None = None, width: int | None = None) -> None:
        """See `Compressor`."""
        if width is not None and width % self.pieces:
            raise ValueError(f"compressor.pieces must divide the width of tokens ({width}), got {self.pieces}")

    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        """Floats (R, L, D / pieces), the codebooks, and a place (B, N, D) for gradients; integers (B, N, pieces)."""
        batch, tokens, width = z.shape
        with outside_autocast(z):
            z = z.float()
            codes, books = self._quantised(z.detach(), generator)
            quantised = _looked_up(books, codes).view(batch, tokens, width)
            correction = self.correction / batch * (z.detach() - quantised)  # the loss is a mean over samples
        return Payload((books, _Place.apply(z, correction)), (codes,), labels=y)

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """The codewords (B, N, D), whose gradients are those of the place, and hard labels (B,)."""
        books, place = payload.floats
        codes = payload.integers[0].view(shape.batch, shape.tokens, self.pieces)
        return _looked_up(books, codes).view(place.shape) + place, hard_labels(payload)

    def layout(self, shape: BatchShape) -> Layout:
        """R L D / pieces 32 + B N pieces ceil(log2 L) + B ceil(log2 labels) bits up, B N D 32 down."""
        count = self._count(shape.batch, shape.tokens)
        books = Floats((self.groups, count, shape.width // self.pieces), back=0, protected=True)
        place = Floats((shape.batch, shape.tokens, shape.width), bits=0)
        codes = Integers.one_of(count, (shape.batch, shape.tokens, self.pieces))
        return Layout((books, place), (codes,), labels_of(shape))

    def nominal_ratios(self, shape: BatchShape) -> tuple[float, float]:
        """What is sent over B N D floats, and all of them back."""
        return self.layout(shape).uplink_bits / (32 * shape.batch * shape.tokens * shape.width), 1.0

    def _count(self, batch: int, tokens: int) -> int:
        """L, or as many as there are pieces for a codebook."""
        return min(self.codewords, batch * tokens * (self.pieces // self.groups))

    def _quantised(self, z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        batch, tokens, width = z.shape
        count, each = self._count(batch, tokens), self.pieces // self.groups
        device = torch.device("cpu") if generator is None else generator.device
        pieces = z.view(batch, tokens, self.groups, each, width // self.pieces)
        codes, books = [], []
        for group in pieces.unbind(2):
            rows = group.reshape(-1, width // self.pieces)
            start = onto(torch.randperm(len(rows), generator=generator, device=device)[:count], z.device)
            code, book = kmeans(rows, start, max_iterations=self.iterations)
            codes.append(code.view(batch, tokens, 1, each))
            books.append(book)
        return torch.cat(codes, 2).view(batch, tokens, self.pieces), torch.stack(books)


class _Place(torch.autograd.Function):
    """Zeros in the place of z; backward, what comes for them plus a correction is the gradient of z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, correction: Tensor) -> Tensor:
        ctx.save_for_backward(correction)
        return torch.zeros_like(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient + ctx.saved_tensors[0], None


def _looked_up(books: Tensor, codes: Tensor) -> Tensor:
    """Codewords (..., pieces, D / pieces) of codes (..., pieces)."""
    each = codes.shape[-1] // len(books)
    group = torch.arange(codes.shape[-1], device=codes.device) // each
    return books[group, codes]
