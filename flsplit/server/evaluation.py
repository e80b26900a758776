"""Loss and metrics of a split model on held-back samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flsplit.assembly import Assembly
from flsplit.data import Table
from flsplit.split.side import SideState
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
    """Evaluates models of one experiment; compression is off unless the compressor says `at_eval`."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self.client, self.server = assembly.client_side(), assembly.server_side()
        self._metrics = assembly.config.metric_instances(assembly.dataset.classes)
        self._compress = self.client.stages.compressor.at_eval

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
        loss = torch.zeros((), dtype=torch.float64, device=self._assembly.device)
        samples = 0
        for metric in self._metrics:
            metric.reset()
        for images, labels in self._batches(table, indices):
            logits = self._logits(images, labels).float()
            loss += F.cross_entropy(logits, labels, reduction="sum").double()
            samples += len(labels)
            for metric in self._metrics:
                metric.update(logits, labels)
        if not samples:
            return None
        found = {
            name: value
            for metric in self._metrics
            for name, value in zip(metric.columns, metric.compute(), strict=True)
        }
        return Score(float(loss) / samples, found)

    def _batches(self, table: Table, indices: np.ndarray | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Large batches; where compression is on, batches of the training size in whole groups."""
        if not self._compress:
            yield from self._assembly.pipeline.eval_batches(table, indices, BATCH[self._assembly.device.type])
            return
        group = self.client.stages.compressor.group_size
        size = self._assembly.config.batch_size
        for images, labels in self._assembly.pipeline.eval_batches(table, indices, size):
            whole = len(labels) - len(labels) % group
            for part in (slice(0, whole), slice(whole, len(labels))):
                if len(labels[part]):
                    yield images[part], labels[part]

    def _logits(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._assembly.autocast():
            z, scores = self.client.model(images)
            if not self._compress:
                return self.server.model(z)
            stream = self._assembly.stream(-1, 0)(0)
            payload = self.client.stages.compressor.compress(z, labels, scores, generator=stream)
            shape = shape_of(z, self._assembly.classes)
            received, _ = self.server.stages.compressor.decompress(payload, shape)
            return self.server.stages.compressor.expand(self.server.model(received), payload)
