"""The batch that a step of several clients makes at the host: side by side, or merged with one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from compressors import Payload, Share
from flsplit.split.messages import Uplink
from flsplit.split.passes import Passes
from flsplit.split.side import is_finite
from flsplit.split.stages import Stages


@dataclass(frozen=True, eq=False)
class JointBatch:
    """Activations of all clients, in their order, with their targets.

    Attributes:
        parts: (T, k, D) each, to be concatenated.
        targets: of all, hard labels (T,) or soft ones (T, L).
        rows: for each client, where its samples are among them all; None where it is left out.
        members: for each client, its samples in each of `rows`, where activations count in the loss as these do; None
            where all count alike.
    """

    parts: Sequence[Tensor]
    targets: Tensor
    rows: Sequence[slice | Tensor | None]
    members: Sequence[Tensor | None] | None = None

    def logits(self, model: Passes) -> Tensor:
        """One forward pass over all activations; one for each part where they keep different numbers of tokens."""
        if len({z.shape[1:] for z in self.parts}) == 1:
            return model(_joined(self.parts))
        return _joined([model(z) for z in self.parts])

    def slices(self) -> list[slice]:
        """Where each client's samples are, which lie side by side."""
        found = [at for at in self.rows if isinstance(at, slice)]
        assert len(found) == len(self.rows), "clients compressed as one have no rows of their own"
        return found

    def losses(self, logits: Tensor, loss: Tensor) -> list[Tensor]:
        """For each client the loss over its own targets; not a number where it is left out.

        Where activations count as their members do, they count here as the client's own members do: the mean over
        clients, weighted by their samples, is the loss of all.

        Args:
            logits: of all.
            loss: of all.
        """
        if len(self.rows) == 1:
            return [loss]
        members = self.members or [None] * len(self.rows)
        lost = torch.full_like(loss, torch.nan)
        return [lost if at is None else self._loss(logits[at], at, own) for at, own in zip(self.rows, members)]

    def _loss(self, logits: Tensor, at: slice | Tensor, members: Tensor | None) -> Tensor:
        if members is None:
            return F.cross_entropy(logits, self.targets[at])
        targets = self.targets[at]
        each = F.cross_entropy(logits, targets / targets.sum(1, keepdim=True), reduction="none")
        return (each * members).sum() / members.sum()


def side_by_side(stages: Sequence[Stages], payloads: Sequence[Payload], uplinks: Sequence[Uplink]) -> JointBatch:
    """Each client's activations by themselves, concatenated.

    Args:
        stages: of each client.
        payloads: of each, from `Stages.received`.
        uplinks: of each.
    """
    found = [own.decompress(payload, uplink) for own, payload, uplink in zip(stages, payloads, uplinks)]
    targets = [target for _, target in found]
    ends = list(accumulate((len(target) for target in targets), initial=0))
    return JointBatch([z for z, _ in found], _joined(targets), [slice(*pair) for pair in pairwise(ends)])


def as_one(
    stages: Stages, payloads: Sequence[Payload], uplinks: Sequence[Uplink], shares: Sequence[Share]
) -> JointBatch:
    """All clients' activations, merged with one another.

    One whose values are not finite is left out, since it would spoil those that it shares a cluster with; unless that
    leaves none. On a GPU, where looking would cost a wait in every step, the host takes no step with what comes of it.

    Args:
        stages: of all clients.
        payloads: of each, from `Stages.received`.
        uplinks: of each.
        shares: of each in the plan of the step.
    """
    sent = [stages.compressed(payload, uplink) for payload, uplink in zip(payloads, uplinks)]
    sound = [all(is_finite(t.detach()) for t in payload.floats if t.device.type == "cpu") for payload in sent]
    there = [at for at, fine in enumerate(sound) if fine] or list(range(len(sent)))
    assert stages.exchange is not None
    cohort, classes = stages.exchange.cohort, uplinks[0].shape.classes
    joined = cohort.join([sent[at] for at in there], [shares[at] for at in there], classes)
    rows = dict(zip(there, joined.rows, strict=True))
    members = None if joined.members is None else dict(zip(there, joined.members, strict=True))
    everyone = range(len(sent))
    return JointBatch(
        [joined.activations], joined.targets, [rows.get(at) for at in everyone],
        None if members is None else [members.get(at) for at in everyone],
    )  # fmt: skip


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
