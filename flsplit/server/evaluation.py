"""Loss and metrics of a split model on held-back samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flsplit.assembly import Assembly
from flsplit.config.schema import LINK
from flsplit.data import Table
from flsplit.metrics.interface import numbers_of
from flsplit.split.side import SideState
from flsplit.split.stages import Stages
from flsplit.split.trainer import shape_of

BATCH = {"cpu": 250, "cuda": 1000}  # samples at a time


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy over samples, and the numbers of the metrics by column."""

    loss: float
    metrics: dict[str, float]

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.metrics["accuracy"]


def mean(scores: Sequence[Score]) -> Score:
    """Mean over models."""
    metrics = {name: sum(score.metrics[name] for score in scores) / len(scores) for name in scores[0].metrics}
    return Score(sum(score.loss for score in scores) / len(scores), metrics)


class Evaluator:
    """Evaluates models of one experiment; compression is off unless the compressor says `at_eval`.

    Where a quantiser or a channel says so, they are evaluated once more through it, in messages of the training size:
    the columns `link_...`. Its random numbers are the same at every evaluation.
    """

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self.client, self.server = assembly.client_side(), assembly.server_side()
        self._compress = self.client.stages.compressor.at_eval
        sides = self.client.stages.for_evaluation(), self.server.stages.for_evaluation()
        self._link = sides if sides[0].behind else None
        self._metrics = {
            prefix: assembly.config.metric_instances(assembly.dataset.classes)
            for prefix in ("", *([LINK] if self._link else []))
        }

    @torch.no_grad()
    def score(
        self, models: tuple[SideState, SideState], table: Table, indices: np.ndarray | None = None
    ) -> Score | None:
        """Evaluate client-side and server-side model on `table`, or on its rows `indices`.

        Returns:
            the score, or None where there are no samples.
        """
        for side, state in zip((self.client, self.server), models):
            side.load(replace(state, moments=None))
            side.modules.eval()
        zero = torch.zeros((), dtype=torch.float64, device=self._assembly.device)
        losses = dict.fromkeys(self._metrics, zero)
        samples = 0
        for metric in chain.from_iterable(self._metrics.values()):
            metric.reset()
        messages = count()
        for images, labels in self._batches(table, indices):
            for prefix, logits in self._logits(images, labels, messages).items():
                losses[prefix] = losses[prefix] + F.cross_entropy(logits, labels, reduction="sum").double()
                for metric in self._metrics[prefix]:
                    metric.update(logits, labels)
            samples += len(labels)
        if not samples:
            return None
        found = {
            f"{prefix}{name}": value
            for prefix, metrics in self._metrics.items()
            for metric in metrics
            for name, value in numbers_of(metric).items()
        }
        of_link = {f"{LINK}loss": float(losses[LINK]) / samples} if self._link else {}
        return Score(float(losses[""]) / samples, {**found, **of_link})

    def release(self) -> None:
        """Let the processes of clients have what evaluations took of a GPU that they share."""
        if self._assembly.device.type == "cuda" and self._assembly.config.engine.name != "inline":
            torch.cuda.empty_cache()

    def _batches(self, table: Table, indices: np.ndarray | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Large batches, of whole messages; where compression is on, batches of the training size in whole groups."""
        size, most = self._assembly.config.batch_size, BATCH[self._assembly.device.type]
        if not self._compress:
            large = most if self._link is None else max(1, most // size) * size
            yield from self._assembly.pipeline.eval_batches(table, indices, large)
            return
        group = self.client.stages.compressor.group_size
        for images, labels in self._assembly.pipeline.eval_batches(table, indices, size):
            whole = len(labels) - len(labels) % group
            for part in (slice(0, whole), slice(whole, len(labels))):
                if len(labels[part]):
                    yield images[part], labels[part]

    def _logits(self, images: Tensor, labels: Tensor, messages: Iterator[int]) -> dict[str, Tensor]:
        """Of one batch, by the prefix of their columns: as models are evaluated, and through the link."""
        stream = self._assembly.stream(-1, 0)
        with self._assembly.autocast():
            z, scores = self.client.model(images)
            found = {}
            if self._compress:
                payload = self.client.stages.compressor.compress(z, labels, scores, generator=stream(0))
                received, _ = self.server.stages.compressor.decompress(payload, shape_of(z, self._assembly.classes))
                found[""] = self.server.stages.compressor.expand(self.server.model(received), payload)
            else:
                found[""] = self.server.model(z)
            if self._link is not None:
                size = self._assembly.config.batch_size
                through = []
                for first in range(0, len(z), size):
                    part = slice(first, first + size)
                    own = None if scores is None else scores[part]
                    through.append(self._through(*self._link, z[part], labels[part], own, next(messages)))
                found[LINK] = torch.cat(through)
        return {prefix: logits.float() for prefix, logits in found.items()}

    def _through(
        self, client: Stages, server: Stages, z: Tensor, labels: Tensor, scores: Tensor | None, number: int
    ) -> Tensor:
        """Logits of one message, as they are after it has crossed."""
        key, shape = (-1, 0, number), shape_of(z, self._assembly.classes)
        sent = client.compress(z, labels, scores, shape, generator=self._assembly.stream(-1, 0)(0), key=key)
        uplink = client.uplink(sent, shape, key=key)
        payload = server.received(uplink, self._assembly.device)
        received, _ = server.decompress(payload, uplink)
        return server.compressor.expand(self.server.model(received), payload)
