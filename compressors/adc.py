"""Attention-based Double Compression: merge similar samples, then keep their most attended tokens.

arXiv 2509.15058, section 4, equations 3 to 5, and Table 1. K-means groups the samples of a batch by the
attention that CLS pays to each token; a cluster is sent as the mean activation of its members, restricted to
the tokens with the highest mean attention. Gradients flow through the mean only, and shrink alike.

Legend of shapes: B samples, N tokens, D width, L labels, T clusters, k tokens kept.
"""

from math import log
from typing import Any

import torch
from torch import Tensor

from compressors.adc_cohort import AdcCohort
from compressors.interface import (
    BatchShape,
    Compressor,
    Floats,
    Integers,
    Layout,
    Payload,
    draw_device,
    labels_of,
    onto,
    outside_autocast,
)
from compressors.kmeans import cluster_means, kmeans, membership
from compressors.options import choice, fraction

# How a ratio is split: exponents of T/B and k/n. `sqrt` is the paper's text (section 5.3); the others are
# those of the authors' earlier and later code. Those of `release2026` sum to 3/4: it sends more than it says.
RULES = {"sqrt": (1 / 2, 1 / 2), "pow_1_5_4_5": (1 / 5, 4 / 5), "release2026": (1 / 2, 1 / 4)}
VECTORS = ("cls_score", "cls_token", "avg_token")
SCOPES = ("client", "cohort")
MERGES = ("any", "within_class")
LOSS_WEIGHTS = ("none", "size")
_APART = 2.0**16  # between two classes; no two vectors are as far from each other


class ADC(Compressor):
    """Merge B samples into T, and keep k of N tokens of each.

    Args:
        ratio: requested compression ratio, in (0, 1].
        rule: how the ratio is split between samples and tokens, a key of `RULES`.
        batch_ratio: T/B, in (0, 1]; with `token_ratio`, it replaces `ratio` and `rule`.
        token_ratio: k/n, in (0, 1].
        vector: what K-means sees (Table 2): `cls_score`, `cls_token` or `avg_token`. Tokens are chosen by the
            cluster's mean CLS score in any case.
        merge: which samples may be merged: `any` with any other, or `within_class`: those of the same class only. Then
            each class of a batch has one of the T clusters at least; a batch of more than T classes is merged as with
            `any`, so that what is sent depends on shapes alone.
        loss_weight: of a cluster in the loss: `none`: all count alike, as the authors have it; `size`: each counts as
            its members do. Its soft labels are multiplied by n_t T / B, whose mean is 1, since cross-entropy is linear
            in them. The server knows the sizes, so nothing more is sent.
        scope: whose samples are merged with one another: `client`: those of its batch; `cohort`: those of all clients
            of a training step, see `compressors.adc_cohort`.
        at_eval: whether evaluation merges batches too.

    Raises:
        ValueError: for an option out of range, or only one of the two factors.
    """

    def __init__(
        self,
        *,
        ratio: float = 0.25,
        rule: str = "sqrt",
        batch_ratio: float | None = None,
        token_ratio: float | None = None,
        vector: str = "cls_score",
        merge: str = "any",
        loss_weight: str = "none",
        scope: str = "client",
        at_eval: bool = False,
    ) -> None:
        super().__init__(at_eval=at_eval)
        self.ratio = fraction("ratio", ratio)
        self.vector = choice("vector", vector, VECTORS)
        self.within_class = choice("merge", merge, MERGES) == "within_class"
        self.by_size = choice("loss_weight", loss_weight, LOSS_WEIGHTS) == "size"
        self.cohort = AdcCohort(self) if choice("scope", scope, SCOPES) == "cohort" else None
        of_batch, of_tokens = RULES[choice("rule", rule, RULES)]
        self.batch_ratio, self.token_ratio = ratio**of_batch, ratio**of_tokens
        self._by_rule = batch_ratio is None
        if batch_ratio is not None and token_ratio is not None:
            self.batch_ratio = fraction("batch_ratio", batch_ratio)
            self.token_ratio = fraction("token_ratio", token_ratio)
            self.ratio = self.batch_ratio * self.token_ratio
        elif batch_ratio is not None or token_ratio is not None:
            raise ValueError(
                "compressor.batch_ratio and compressor.token_ratio must be given together, "
                f"got batch_ratio={batch_ratio} and token_ratio={token_ratio}"
            )

    def options_for(self, ratio: float) -> dict[str, Any]:
        """The ratio, divided between batch and tokens as that of the others: by their rule, or by their two factors.

        Of these, log(T/B) and log(k/n) keep their proportion.
        """
        if self._by_rule:
            return {"ratio": ratio, "batch_ratio": None, "token_ratio": None}
        of_batch = log(self.batch_ratio) / log(self.ratio) if self.ratio < 1 else 0.5
        return {"ratio": ratio, "batch_ratio": ratio**of_batch, "token_ratio": ratio ** (1 - of_batch)}

    def clusters(self, batch: int) -> int:
        """T for a batch of B: at least 2, at most B."""
        return min(batch, max(2, _floor(self.batch_ratio * batch)))

    def kept_tokens(self, tokens: int) -> int:
        """The number of tokens kept of N, the prefix tokens among them."""
        return max(1, self.prefix_tokens, _floor(self.token_ratio * tokens))

    def compress(
        self,
        z: Tensor,
        y: Tensor,
        s: Tensor | None,
        *,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
    ) -> Payload:
        """Floats (T, k, D), prefix tokens first; integers (B,) clusters, and the labels.

        Args:
            z: activations (B, N, D).
            y: labels (B,).
            s: CLS attention (B, N).
            generator: draws the samples that K-means starts from.
            start: these samples instead, T distinct indices; with `merge=within_class`, of all classes there are.

        Raises:
            ValueError: if `start` does not hold T indices.
        """
        scores, vectors = self.compared(z, s)
        cluster, chosen = self.grouped(scores, vectors, y, generator=generator, start=start)
        return Payload((self.merged(z, cluster, chosen),), (cluster,), labels=y)

    def compared(self, z: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """The scores (B, N), and what the samples are compared by: (B, N) or (B, D)."""
        assert s is not None, "ADC chooses by the CLS attention"
        with outside_autocast(z):
            scores = s.detach().float()
            if self.vector == "cls_score":
                return scores, scores
            z = z.detach().float()
            return scores, z[:, 0] if self.vector == "cls_token" else z.mean(1)

    def grouped(
        self,
        scores: Tensor,
        vectors: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Clusters of samples, equation 3, and the tokens that each keeps.

        Args:
            scores: (B, N).
            vectors: what the samples are compared by.
            y: labels (B,).
            generator: see `compress`.
            start: see `compress`.

        Returns:
            cluster of every sample (B,), tokens of every cluster (T, k).

        Raises:
            ValueError: see `compress`.
        """
        batch, tokens = scores.shape
        clusters = self.clusters(batch)
        if start is not None and start.shape != (clusters,):
            raise ValueError(f"start must have shape ({clusters},), got {tuple(start.shape)}")
        order = start
        if order is None:
            order = onto(torch.randperm(batch, generator=generator, device=draw_device(generator)), y.device)
        with outside_autocast(scores):
            if self.within_class:
                apart = _classes(y) <= clusters  # a tensor, for which nobody waits
                if start is None:
                    order = torch.where(apart, _all_classes_first(order, y), order)
                # One coordinate more, the same within a class: no sample is nearer to another's centroids.
                vectors = torch.cat([vectors, torch.where(apart, _APART * y, 0.0).unsqueeze(1)], dim=1)
            cluster, _ = kmeans(vectors, onto(order[:clusters], vectors.device))
            return cluster, self._choose_tokens(cluster_means(scores, cluster, clusters), self.kept_tokens(tokens))

    def merged(self, z: Tensor, cluster: Tensor, chosen: Tensor) -> Tensor:
        """Means over the members of every cluster, equation 4, of the tokens that it keeps.

        Args:
            z: (B, N, D).
            cluster: of every sample (B,).
            chosen: tokens of every cluster (T, k).

        Returns:
            (T, k, D).
        """
        batch, tokens, width = z.shape
        clusters, kept = chosen.shape
        with outside_autocast(z):
            # Every sample gathers its cluster's tokens before the mean, so that only B k D numbers move.
            first_row = torch.arange(0, batch * tokens, tokens, device=z.device).unsqueeze(1)
            rows = (first_row + chosen[cluster]).flatten()
            members = z.float().flatten(0, 1).index_select(0, rows).view(batch, kept * width)
            return cluster_means(members, cluster, clusters).view(clusters, kept, width)

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Merged activations (T, k, D) and their soft labels (T, L), equation 5."""
        merged, cluster, y = payload.floats[0], payload.integers[0], payload.labels
        assert y is not None, "soft labels are formed where the labels are"
        with outside_autocast(merged):
            return merged, self.soft_labels(y, cluster, shape.classes, len(merged))

    def soft_labels(self, y: Tensor, cluster: Tensor, classes: int, clusters: int) -> Tensor:
        """The share of every label among the members of every cluster, equation 5, weighted: (B,) labels to (T, L)."""
        labels = cluster_means(membership(y, classes).float(), cluster, clusters)
        if not self.by_size:
            return labels
        return labels * (membership(cluster, clusters).sum(0) * clusters / len(y)).unsqueeze(1)

    def expand(self, logits: Tensor, payload: Payload) -> Tensor:
        """Every sample takes its cluster's logits: (T, L) -> (B, L)."""
        return logits[payload.integers[0]]

    def layout(self, shape: BatchShape) -> Layout:
        """T k D 32 + B (ceil(log2 L) + ceil(log2 T)) bits up, T k D 32 down."""
        clusters = self.clusters(shape.batch)
        merged = (clusters, self.kept_tokens(shape.tokens), shape.width)
        return Layout((Floats(merged),), (Integers.one_of(clusters, (shape.batch,)),), labels_of(shape))

    def nominal_ratios(self, shape: BatchShape) -> tuple[float, float]:
        """T/B k/n both ways, as requested."""
        return self.ratio, self.ratio

    def _choose_tokens(self, scores: Tensor, kept: int) -> Tensor:
        """Prefix tokens, then the highest of the rest (the lower index among equals): (T, N) -> (T, k)."""
        prefix = self.prefix_tokens
        ranked = scores[:, prefix:].sort(dim=1, descending=True, stable=True).indices + prefix
        always = torch.arange(prefix, device=scores.device).expand(len(scores), prefix)
        return torch.cat([always, ranked[:, : kept - prefix]], dim=1)


def _all_classes_first(order: Tensor, y: Tensor) -> Tensor:
    """`order` (B,) of samples with the first of each class before all others."""
    return order[_repeated(y[order]).sort(stable=True).indices]


def _classes(y: Tensor) -> Tensor:
    """How many labels there are among `y` (B,): a scalar."""
    return len(y) - _repeated(y).sum()


def _repeated(y: Tensor) -> Tensor:
    """Whether another of its label precedes it, (B,)."""
    return (y.unsqueeze(1) == y.unsqueeze(0)).tril(-1).any(1)


def _floor(x: float) -> int:
    """Floor that a rounding error just below a whole number does not pull down (0.29 * 100 is 29)."""
    return int(x + 1e-9)
