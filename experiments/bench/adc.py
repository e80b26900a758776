"""`adc`: one client with ADC, over a plain loop that does the same work with clusters known beforehand.

The plain loop runs the client's blocks on all B images, gathers and averages with fixed indices, runs the server's
blocks on the T merged samples, goes backward through both, and steps Adam: what ADC costs where clustering, choosing
tokens, two graphs, messages and their account cost nothing.

Beside it stands the ratio to `base`. It is bounded: the client's blocks, forward and backward, see all B images. Of
twelve blocks cut after three, with the server's work going down to a tenth, that bound is 1 / (3/12 + 9/12/10) = 3.1.

Legend of shapes: B samples, N tokens, D width, L labels, T clusters, k tokens kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compressors.adc import ADC
from compressors.kmeans import cluster_means, kmeans, membership
from experiments.bench.case import Result, compare
from experiments.bench.workload import LR, Workload
from flsplit.split.model import cut
from flsplit.streams import torch_stream

RATIO = 0.1
CPU = Workload(steps=12)  # a round, with what it costs once, is 390 steps in the paper


def run(*, pairs: int, workload: Workload = CPU, case: str = "adc") -> Iterator[Result]:
    """Samples per second: ours over the plain loop's, and ours with ADC over ours without compression."""
    with workload.made() as made:
        fixed = clusters_known(made)

        def ours() -> float:
            return made.run(compressor="adc", compressor__ratio=RATIO)

        yield compare(
            case, f"samples/s of one client (adc {RATIO}, inline) over a plain loop with precomputed clusters", ours,
            lambda: made.timed(merging_step(made, fixed)), pairs=pairs, goal=0.95, at_least=True, note=str(made),
        )  # fmt: skip
        yield compare(
            case, f"samples/s of one client, adc {RATIO} over base (both inline; arithmetic bound about 3.1)", ours,
            made.run, pairs=pairs, goal=None, at_least=True, note=str(made),
        )  # fmt: skip


@dataclass(frozen=True)
class Fixed:
    """How one batch is merged: `rows` (B k,) of its (B N, D) tokens, and `weights` (T, B) of the means."""

    rows: Tensor
    weights: Tensor


def clusters_known(workload: Workload, split_point: int = 3) -> list[Fixed]:
    """The clusters that ADC finds in every batch with the model before its first step."""
    client, _ = cut(workload.vit(), split_point)
    adc, found = ADC(ratio=RATIO), []
    for step, (images, _) in enumerate(workload.batches()):
        with torch.no_grad(), workload.autocast():
            z, scores = client(images)
        assert scores is not None
        batch, tokens, _ = z.shape
        count, scores = adc.clusters(batch), scores.float()
        start = torch.randperm(batch, generator=torch_stream(0, "compressor", 0, 1, step))[:count]
        cluster, _ = kmeans(scores, start.to(scores.device))
        ranked = cluster_means(scores, cluster, count)[:, 1:].sort(dim=1, descending=True, stable=True).indices + 1
        kept = F.pad(ranked[:, : adc.kept_tokens(tokens) - 1], (1, 0))  # CLS, token 0, comes first
        rows = tokens * torch.arange(batch, device=kept.device).unsqueeze(1) + kept[cluster]
        member = membership(cluster, count).float()
        found.append(Fixed(rows.flatten(), member.T / member.sum(0).unsqueeze(1)))
    return found


def merging_step(workload: Workload, fixed: list[Fixed], split_point: int = 3) -> Callable[[Tensor, Tensor], Tensor]:
    """A training step of both parts as one graph, which returns its loss; `fixed` has the clusters of each step."""
    client, server = cut(workload.vit(), split_point)
    client.with_scores = False
    optimizer = torch.optim.Adam([*client.parameters(), *server.parameters()], lr=LR)
    turn = iter(fixed)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        known = next(turn)
        with workload.autocast():
            z, _ = client(images)
        tokens = z.float().flatten(0, 1).index_select(0, known.rows)
        merged = (known.weights @ tokens.view(len(images), -1)).view(len(known.weights), -1, z.shape[2])
        target = known.weights @ F.one_hot(labels, workload.classes).float()
        with workload.autocast():
            logits = server(merged)
        loss = F.cross_entropy(logits.float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step
