"""The server's half of a training step: server-side models, their optimizers, and `step`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flsplit.split.messages import Downlink, Uplink
from flsplit.split.passes import Passes
from flsplit.split.side import Side, SideState
from flsplit.split.stages import Stages


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
        stages_of: what a client's messages go through, as a side has it, where that is not the same for all.
        sides: how many to make at once; as many more as clients have open at a time are made then.
    """

    def __init__(
        self,
        make_side: Callable[[], Side],
        *,
        autocast: Callable[[], AbstractContextManager[object]],
        stages_of: Callable[[int, Stages], Stages] = lambda client, stages: stages,
        sides: int = 1,
    ) -> None:
        self._make_side = make_side
        self._stages_of = stages_of
        self._autocast = autocast
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

    def step(self, uplink: Uplink) -> Downlink:
        """Forward, backward and optimizer step of the server-side model on one uplink.

        Returns:
            the answer: gradients with respect to the floats received.
        """
        return self.step_jointly([uplink])[0]

    def step_jointly(self, uplinks: Sequence[Uplink]) -> list[Downlink]:
        """One step on several clients' uplinks: the loss is the mean over all their targets, concatenated.

        Returns:
            for each uplink its answer: gradients of that loss with respect to the floats received.
        """
        side = self._shared or self._open[uplinks[0].client]
        if self._shared is not None:
            side.brace()
        stages = [self._stages_of(uplink.client, side.stages) for uplink in uplinks]
        payloads = [own.received(uplink, side.device) for own, uplink in zip(stages, uplinks)]
        with self._autocast():
            parts = [own.decompress(payload, uplink) for own, payload, uplink in zip(stages, payloads, uplinks)]
            logits = _logits(side.passes, [z for z, _ in parts]).float()
        targets = [target for _, target in parts]
        loss = F.cross_entropy(logits, _joined(targets))
        loss.backward()
        if self._shared is not None:
            side.step_if_finite()
        else:
            side.step()
        self._note_losses(uplinks, loss.detach(), logits.detach(), targets)
        return [own.downlink(uplink, payload) for own, uplink, payload in zip(stages, uplinks, payloads)]

    def _note_losses(self, uplinks: Sequence[Uplink], loss: Tensor, logits: Tensor, targets: Sequence[Tensor]) -> None:
        """Add to every client's sum the loss over its own targets."""
        if len(uplinks) == 1:
            own = [loss]
        else:
            rows = logits.split([len(target) for target in targets])
            own = [F.cross_entropy(of_client, target) for of_client, target in zip(rows, targets)]
        for uplink, value in zip(uplinks, own):
            self._losses[uplink.client] = self._losses[uplink.client].to(loss.device) + value.double()
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


def _logits(model: Passes, parts: Sequence[Tensor]) -> Tensor:
    """One forward pass over all clients' activations; one each where they keep different numbers of tokens."""
    if len({z.shape[1:] for z in parts}) == 1:
        return model(_joined(parts))
    return _joined([model(z) for z in parts])


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
