"""The server's half of a training step: server-side models, their optimizers, and `step`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compressors import Share
from flsplit.split.adjustment import LogitAdjustment
from flsplit.split.joint import as_one, side_by_side
from flsplit.split.messages import Downlink, Grouping, Proposal, Uplink
from flsplit.split.side import Side, SideState
from flsplit.split.stages import Draws, Stages, undrawn


@dataclass(frozen=True)
class Closed:
    """What is left of a client's round at the host: its replica (None where shared) and its summed loss."""

    replica: SideState | None
    loss: float


class ServerHost:
    """Owns the server-side models of a round and answers `step(uplink) -> downlink`.

    With `shared=False` every client steps its own replica of the server-side model (SplitFed V1 and V3), with
    `shared=True` all step the same one; there, a step with a gradient that is not finite is not taken. Where it runs
    (in the client's process, in the server's, in an actor) makes no difference to it.

    Args:
        make_side: makes a server side.
        autocast: context of forward passes.
        draws: context of what a model draws in a forward pass, by key: that of the first client in a joint step.
        stages_of: what a client's messages go through, as a side has it, where that is not the same for all.
        stream: the random streams of a client's compressor in a round, by step; only for clients compressed as one.
        adjustment: of the logits to what labels each client has; None for none. Not for clients compressed as one.
        sides: how many to make at once; as many more as clients have open at a time are made then.
    """

    def __init__(
        self,
        make_side: Callable[[], Side],
        *,
        autocast: Callable[[], AbstractContextManager[object]],
        draws: Draws = undrawn,
        stages_of: Callable[[int, Stages], Stages] = lambda client, stages: stages,
        stream: Callable[[int, int], Callable[[int], torch.Generator]] | None = None,
        adjustment: LogitAdjustment | None = None,
        sides: int = 1,
    ) -> None:
        self._make_side = make_side
        self._stages_of = stages_of
        self._autocast, self._draws = autocast, draws
        self._stream, self._adjustment = stream, adjustment
        self._shares: dict[int, Share] = {}  # of the step at hand, by client
        self._idle = [make_side() for _ in range(sides)]
        self._open: dict[int, Side] = {}
        self._shared: Side | None = None
        self._state: SideState | None = None
        self._losses: dict[int, Tensor] = {}
        self._steps: dict[int, int] = {}

    def begin(self, state: SideState, *, shared: bool) -> None:
        """Start a round from `state`; replicas of clients that never closed the last one are dropped."""
        self._idle += self._open.values()
        self._open.clear()
        if self._shared is not None:
            self._idle.append(self._shared)
            self._shared = None
        self._state = state
        if shared:
            self._shared = self._take_side()
            self._shared.load(state)

    def open(self, client: int) -> None:
        """Make ready for `client`'s steps of this round."""
        assert self._state is not None, "begin() comes first"
        if self._shared is None:
            side = self._open.pop(client, None) or self._take_side()
            side.load(self._state)
            side.anchor()
            self._open[client] = side
        else:
            self._shared.forget()
        self._losses[client] = torch.zeros((), dtype=torch.float64)
        self._steps[client] = 0

    def plan(self, proposals: Sequence[Proposal]) -> list[Grouping]:
        """Make a plan of how several clients' batches are compressed as one; `step_jointly` on them is next.

        Returns:
            for each proposal its answer. Random choices are the first client's, as if it were alone.
        """
        side, first = self._shared or self._open[proposals[0].client], proposals[0]
        exchange = side.stages.exchange
        assert exchange is not None and self._stream is not None
        sent = [exchange.proposed(proposal, side.device) for proposal in proposals]
        shares = exchange.cohort.plan(sent, generator=self._stream(first.client, first.round)(first.step))
        self._shares = {proposal.client: share for proposal, share in zip(proposals, shares, strict=True)}
        return [exchange.answer(proposal, share) for proposal, share in zip(proposals, shares)]

    def step(self, uplink: Uplink) -> Downlink:
        """Forward, backward and optimizer step of the server-side model on one uplink.

        Returns:
            the answer: gradients with respect to the floats received.
        """
        return self.step_jointly([uplink])[0]

    def step_jointly(self, uplinks: Sequence[Uplink]) -> list[Downlink]:
        """One step on several clients' uplinks: the loss is the mean over all their targets.

        These are concatenated or, where there is a `plan`, those of the clusters that they make together.

        Returns:
            for each uplink its answer: gradients of that loss with respect to the floats received.
        """
        side = self._shared or self._open[uplinks[0].client]
        if self._shared is not None:
            side.brace()
        stages = [self._stages_of(uplink.client, side.stages) for uplink in uplinks]
        payloads = [own.received(uplink, side.device) for own, uplink in zip(stages, uplinks)]
        with self._autocast():
            if side.stages.exchange is None:
                batch = side_by_side(stages, payloads, uplinks)
            else:
                shares = [self._shares[uplink.client] for uplink in uplinks]
                batch = as_one(side.stages, payloads, uplinks, shares)
            with self._draws((uplinks[0].client, uplinks[0].round, uplinks[0].step)):
                logits = batch.logits(side.passes).float()
        if self._adjustment is not None:
            logits = self._adjustment(logits, [uplink.client for uplink in uplinks], batch.slices())
        loss = F.cross_entropy(logits, batch.targets)
        loss.backward()
        if len(payloads) == 1:  # of several, who is spoilt has been left out
            stages[0].hold_to_graph(payloads[0])
        if self._shared is not None:
            side.step_if_finite()
        else:
            side.step()
        self._note_losses(uplinks, batch.losses(logits.detach(), loss.detach()))
        return [own.downlink(uplink, payload) for own, uplink, payload in zip(stages, uplinks, payloads)]

    def _note_losses(self, uplinks: Sequence[Uplink], losses: Sequence[Tensor]) -> None:
        """Add to every client's sum its loss."""
        for uplink, value in zip(uplinks, losses):
            self._losses[uplink.client] = self._losses[uplink.client].to(value.device) + value.double()
            self._steps[uplink.client] += 1

    def close(self, client: int, *, moments: bool) -> Closed:
        """End `client`'s round.

        Args:
            client: whose.
            moments: whether the replica's optimizer moments come along.
        """
        loss = float(self._losses.pop(client))
        self._steps.pop(client)
        if self._shared is not None:
            return Closed(None, loss)
        side = self._open.pop(client)
        self._idle.append(side)
        return Closed(side.state(moments=moments), loss)

    def mean_loss(self, client: int) -> float:
        """Mean loss of `client`'s steps so far in this round (waits for the device)."""
        return float(self._losses[client]) / max(1, self._steps[client])

    def shared_state(self, *, moments: bool) -> SideState:
        """The shared server-side model as it is now."""
        assert self._shared is not None
        return self._shared.state(moments=moments)

    def _take_side(self) -> Side:
        return self._idle.pop() if self._idle else self._make_side()
