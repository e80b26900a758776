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


@dataclass(frozen=True)
class _Way:
    """What batches go through, as the client has it whose models are evaluated.

    Attributes:
        sides: compressor and stages at the client and at the server.
        link: those of them that say `at_eval`, if there are any behind the compressor.
        batch: samples of a message.
    """

    sides: tuple[Stages, Stages]
    link: tuple[Stages, Stages] | None
    batch: int


class Evaluator:
    """Evaluates models of one experiment; compression is off unless the compressor says `at_eval`.

    Where a quantiser or a channel says so, they are evaluated once more through it, in messages of the training size:
    the columns `link_...`. Its random numbers are the same at every evaluation.
    """

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self.client, self.server = assembly.client_side(), assembly.server_side()
        self._compress = self.client.stages.compressor.at_eval
        self._link = bool(self.client.stages.for_evaluation().behind)
        self._metrics = {
            prefix: assembly.config.metric_instances(assembly.dataset.classes)
            for prefix in ("", *([LINK] if self._link else []))
        }

    @torch.no_grad()
    def score(
        self, models: tuple[SideState, SideState], table: Table, indices: np.ndarray | None = None, *,
        client: int | None = None,
    ) -> Score | None:  # fmt: skip
        """Evaluate client-side and server-side model.

        Args:
            models: both.
            table: of samples.
            indices: of its rows; None for all.
            client: whose they are: they are evaluated at its ratio, in messages of its size. None: those of all.

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
        messages, way = count(), self._way(client)
        for images, labels in self._batches(table, indices, way):
            for prefix, logits in self._logits(images, labels, messages, way).items():
                losses[prefix] = losses[prefix] + F.cross_entropy(logits, labels, reduction="sum").double()
                for metric in self._metrics[prefix]:
                    metric.update(logits.clone(), labels.clone())  # which are its own, to keep and to write into
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

    def _way(self, client: int | None) -> _Way:
        at, batch = (self.client.stages, self.server.stages), self._assembly.config.batch_size
        if client is not None:
            at = self._assembly.stages_of(client, at[0]), self._assembly.stages_of(client, at[1])
            batch = self._assembly.profile(client).batch_size or batch
        return _Way(at, (at[0].for_evaluation(), at[1].for_evaluation()) if self._link else None, batch)

    def _batches(self, table: Table, indices: np.ndarray | None, way: _Way) -> Iterator[tuple[Tensor, Tensor]]:
        """Large batches, of whole messages; where compression is on, batches of the training size in whole groups."""
        size, most = way.batch, BATCH[self._assembly.device.type]
        if not self._compress:
            large = most if way.link is None else max(1, most // size) * size
            yield from self._assembly.pipeline.eval_batches(table, indices, large)
            return
        group = way.sides[0].compressor.group_size
        for images, labels in self._assembly.pipeline.eval_batches(table, indices, size):
            whole = len(labels) - len(labels) % group
            for part in (slice(0, whole), slice(whole, len(labels))):
                if len(labels[part]):
                    yield images[part], labels[part]

    def _logits(self, images: Tensor, labels: Tensor, messages: Iterator[int], way: _Way) -> dict[str, Tensor]:
        """Of one batch, by the prefix of their columns: as models are evaluated, and through the link."""
        stream = self._assembly.stream(-1, 0)
        with self._assembly.autocast():
            z, scores = self.client.model(images)
            found = {}
            if self._compress:
                client, server = (stages.compressor for stages in way.sides)
                payload = client.compress(z, labels, scores, generator=stream(0))
                received, _ = server.decompress(payload, shape_of(z, self._assembly.classes))
                found[""] = server.expand(self.server.model(received), payload)
            else:
                found[""] = self.server.model(z)
            if way.link is not None:
                through = []
                for first in range(0, len(z), way.batch):
                    part = slice(first, first + way.batch)
                    own = None if scores is None else scores[part]
                    through.append(self._through(*way.link, z[part], labels[part], own, next(messages)))
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
