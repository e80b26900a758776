"""ADC over the samples of all clients of a training step, which the paper leaves as future work (section 7).

In a step, of which C clients have a batch, B samples together:

1. Client c sends the CLS scores of its samples (B_c, N), their labels, and where they are compared by something else
   (`compressor.vector`), that as well (B_c, D).
2. The server groups all B samples into T clusters, with T of the joint batch, and ranks the tokens by the mean score of
   each cluster. It tells client c in which of its own G_c groups each of its samples is, a group being what it has of
   one cluster, and which tokens each group keeps.
3. Client c sends for each group the mean of its members. The server adds up: a merged activation is the mean over the
   clients that have members in the cluster, each weighted by its share n_ct / n_t of them.
4. The server-side model takes one step on the T merged activations. A client gets the gradient with respect to its
   G_c means, which is that of the merged activation times n_ct / n_t.

Price of a step for client c, in bits: up B_c N 32 (and B_c D 32 with another vector), B_c ceil(log2 L), and
G_c k D 32; down B_c ceil(log2 G_c), G_c (k - p) ceil(log2(N - p)) for p prefix tokens, which are always kept, and
G_c k D 32. A cluster that spans clients costs a vector for each of them. So all clients together send sum G_c vectors:
T where no cluster spans clients, and up to C T or B where they do; clients with unlike data come off best. That number
is known only with the plan; `nominal` stays the ratio that was asked for, of the joint batch.

What leaks: the server learns the attention scores of every sample and, for a group of one member, that sample's
activation as it is, however large its cluster is. Clients never learn who else is in their clusters, nor how many: only
the tokens that a group keeps, which its other members' attention had a say in, and its gradient, in which their
activations and labels are mixed with its own.

A client that drops out between 2 and 3, or sends what is not finite, is left out of the means; clusters of its samples
alone are left out as well.

Legend of shapes: B samples, N tokens, D width, L labels, T clusters, k tokens kept, G groups of a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressors.cohort import Cohort, Joined, Share
from compressors.interface import (
    BatchShape,
    Floats,
    Integers,
    Layout,
    Payload,
    hard_labels,
    labels_of,
    outside_autocast,
)
from compressors.kmeans import membership

if TYPE_CHECKING:
    from compressors.adc import ADC


class AdcCohort(Cohort):
    """See the module.

    Args:
        adc: that groups and merges.
    """

    def __init__(self, adc: ADC) -> None:
        self._adc = adc

    def propose(self, z: Tensor, y: Tensor, s: Tensor | None) -> Payload:
        """Floats: the scores (B, N), and what else the samples are compared by; and the labels."""
        scores, vectors = self._adc.compared(z, s)
        return Payload((scores,) if vectors is scores else (scores, vectors), labels=y)

    def proposal(self, shape: BatchShape) -> Layout:
        """B (N 32 + ceil(log2 L)) bits, and B D 32 with another vector than the scores."""
        widths = (shape.tokens,) if self._adc.vector == "cls_score" else (shape.tokens, shape.width)
        floats = tuple(Floats((shape.batch, width), back=0, protected=True) for width in widths)
        return Layout(floats, labels=labels_of(shape))

    def plan(
        self,
        proposals: Sequence[Payload],
        *,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
    ) -> list[Share]:
        """Integers: group of every sample (B_c,), and tokens of every group, highest first, from the prefix on.

        What is not finite in a proposal counts as 0: it cannot spoil the clusters of others.

        Args:
            proposals: of all clients of a step, in their order.
            generator: draws the samples that K-means starts from.
            start: these samples instead, T distinct indices into all of them.

        Raises:
            ValueError: if `start` does not hold T indices.
        """
        scores, vectors = (
            torch.cat([proposal.floats[at] for proposal in proposals]).nan_to_num() for at in (0, -1)
        )  # fmt: skip
        labels = [hard_labels(proposal) for proposal in proposals]
        cluster, chosen = self._adc.grouped(scores, vectors, torch.cat(labels), generator=generator, start=start)
        tokens, shares = chosen[:, self._adc.prefix_tokens :] - self._adc.prefix_tokens, []
        for own, y in zip(cluster.split([len(y) for y in labels]), labels):
            clusters, group = own.unique(return_inverse=True)
            shares.append(Share(Payload((), (group, tokens[clusters])), clusters, y))
        return shares

    def answer(self, shape: BatchShape) -> Layout:
        """B ceil(log2 G) + G (k - p) ceil(log2(N - p)) bits."""
        assert shape.groups is not None
        prefix = self._adc.prefix_tokens
        tokens = (shape.groups, self._adc.kept_tokens(shape.tokens) - prefix)
        return Layout(
            (), (Integers.one_of(shape.groups, (shape.batch,)), Integers.one_of(max(1, shape.tokens - prefix), tokens))
        )

    def compress(self, z: Tensor, told: Payload) -> Payload:
        """Floats (G, k, D), the means of the client's groups, prefix tokens first."""
        group, tokens = told.integers
        prefix = self._adc.prefix_tokens
        always = torch.arange(prefix, device=z.device).expand(len(tokens), prefix)
        return Payload((self._adc.merged(z, group, torch.cat([always, tokens + prefix], dim=1)),))

    def layout(self, shape: BatchShape) -> Layout:
        """G k D 32 bits up and down; the server knows clusters and labels."""
        assert shape.groups is not None
        return Layout((Floats((shape.groups, self._adc.kept_tokens(shape.tokens), shape.width)),))

    def join(self, payloads: Sequence[Payload], shares: Sequence[Share], classes: int) -> Joined:
        """Merged activations (T, k, D) and their soft labels (T, L), of clusters that have members left."""
        used, places = torch.cat([share.clusters for share in shares]).unique(return_inverse=True)
        rows, groups = places.split([share.groups for share in shares]), [share.told.integers[0] for share in shares]
        members = [membership(group, share.groups).sum(0) for group, share in zip(groups, shares)]
        totals = torch.zeros_like(used).index_add_(0, places, torch.cat(members))
        means = [payload.floats[0] for payload in payloads]
        with outside_autocast(means[0]):
            merged = means[0].new_zeros(len(used), *means[0].shape[1:])
            for mean, row, count in zip(means, rows, members):  # no row twice: repeatable on CUDA
                merged.index_add_(0, row, mean * (count / totals[row]).view(-1, 1, 1))
            y = torch.cat([share.labels for share in shares])
            cluster = torch.cat([row[group] for row, group in zip(rows, groups)])
            targets = self._adc.soft_labels(y, cluster, classes, len(used))
            return Joined(merged, targets, rows, tuple(members) if self._adc.by_size else None)
