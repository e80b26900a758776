"""What the clients of a cohort and the server tell one another before a step: `propose` up, `answer` down.

It passes every stage unchanged, and is paid for at those that guard it, such as a channel whose code protects it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from compressors import BatchShape, Cohort, Layout, Payload, Share, Stage
from flsplit.split.messages import Grouping, Proposal
from flsplit.split.passage import Draw, Key, Passage, Route, on_device


class Exchange:
    """Both halves of it.

    Args:
        cohort: how clients are compressed as one.
        stages: that messages pass; those that do not guard what is told beforehand are left out.
        draw: the random stream of a key.

    Attributes:
        route: layouts of the exchange for a batch; its answer only where the batch's groups are known.
    """

    def __init__(self, cohort: Cohort, stages: Sequence[Stage], draw: Draw | None) -> None:
        self.cohort = cohort
        self._passage = Passage([stage for stage in stages if stage.guards], draw, before=True)
        self.route = lru_cache(maxsize=None)(self._route)

    def propose(self, z: Tensor, y: Tensor, s: Tensor | None, shape: BatchShape, *, key: Key) -> Proposal:
        """Client: what it tells before it compresses; see `Stages.compress`."""
        client, round, step = key
        up = self.route(shape).up
        payload = self._passage.send(self.cohort.propose(z.detach(), y, s), up, way="up", key=key)
        up[-1].check(payload)
        return Proposal(client=client, shape=shape, payload=payload, round=round, step=step)

    def proposed(self, proposal: Proposal, device: torch.device) -> Payload:
        """Host: what a client has proposed, on the device."""
        return _first(on_device(proposal.payload, device), self.route(proposal.shape).up[0])

    def answer(self, proposal: Proposal, share: Share) -> Grouping:
        """Host: how the client of a proposal is to compress."""
        shape = replace(proposal.shape, groups=share.groups)
        down, key = self.route(shape).down, (proposal.client, proposal.round, proposal.step)
        payload = self._passage.send(share.told, down, way="down", key=key)
        down[-1].check(payload)
        return Grouping(client=proposal.client, shape=shape, payload=payload)

    def told(self, grouping: Grouping, device: torch.device) -> Payload:
        """Client: what it has been told, on the device."""
        return _first(on_device(grouping.payload, device), self.route(grouping.shape).down[0])

    def resent(self, shape: BatchShape, *, key: Key) -> tuple[int, int]:
        """Bits that stages send again beyond its price, up and down."""
        route = self.route(shape)
        up = self._passage.resent(route.up, way="up", key=key)
        return up, self._passage.resent(route.down, way="down", key=key)

    def _route(self, shape: BatchShape) -> Route:
        up = self._passage.layouts(self.cohort.proposal(shape), "up")
        down = [] if shape.groups is None else self._passage.layouts(self.cohort.answer(shape), "down")
        return Route(tuple(up), tuple(down))


def _first(payload: Payload, layout: Layout) -> Payload:
    """The fields of a payload that `layout` has, without those that stages have added."""
    return Payload(payload.floats[: len(layout.floats)], payload.integers[: len(layout.integers)], payload.labels)
