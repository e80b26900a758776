"""The server's half of a training step for clients that are stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

from flsplit.split.adjustment import LogitAdjustment
from flsplit.split.host import Closed
from flsplit.split.messages import Downlink, Uplink
from flsplit.split.side import SideState
from flsplit.split.stacked.stack import Stack, neighbours
from flsplit.split.stages import Stages


class StackedHost:
    """Replicas of the server-side model, one in each lane of a stack, for clients that step side by side.

    Clients take the lanes in the order in which they are opened. To each of them it is what a `ServerHost` with
    `shared=False` is.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        autocast: Callable[[], AbstractContextManager[object]],
        stages_of: Callable[[int, Stages], Stages] = lambda client, stages: stages,
        adjustment: LogitAdjustment | None = None,
    ) -> None:
        self._stack = stack
        self._autocast = autocast
        self._stages_of, self._adjustment = stages_of, adjustment
        self._state: SideState | None = None
        self._lanes: dict[int, int] = {}
        self._losses: dict[int, Tensor] = {}
        self._steps: dict[int, int] = {}

    def begin(self, state: SideState, *, shared: bool) -> None:
        """Start a round from `state`; every client has a replica of its own (`shared` is False)."""
        assert not shared
        self._state = state
        self._lanes, self._losses, self._steps = {}, {}, {}
        self._stack.forget()

    def open(self, client: int) -> None:
        """Make ready for `client`'s steps of this round."""
        assert self._state is not None, "begin() comes first"
        lane = self._lanes[client] = len(self._lanes)
        self._stack.load(lane, self._state)
        self._stack.anchor(lane)
        self._losses[client] = torch.zeros((), dtype=torch.float64, device=self._stack.device)
        self._steps[client] = 0

    def step_each(self, uplinks: Sequence[Uplink]) -> list[Downlink]:
        """Forward, backward and optimizer step of several clients' replicas, each on its own uplink.

        Args:
            uplinks: in the order in which the clients were opened; who has none is left out.

        Returns:
            for each its answer: gradients with respect to the floats received.
        """
        stages = [self._stages_of(uplink.client, self._stack.stages) for uplink in uplinks]
        payloads = [own.received(uplink, self._stack.device) for own, uplink in zip(stages, uplinks)]
        with self._autocast():
            parts = [own.decompress(payload, uplink) for own, payload, uplink in zip(stages, payloads, uplinks)]
            activations, targets = [z for z, _ in parts], [target for _, target in parts]
            lanes = [self._lanes[uplink.client] for uplink in uplinks]
            logits: list[Tensor] = []
            for rows, members in neighbours(lanes, activations):
                logits += self._stack(rows, torch.stack(activations[members]))[0].float().unbind()
        if self._adjustment is not None:
            everything = slice(None)
            logits = [self._adjustment(z, [uplink.client], [everything]) for z, uplink in zip(logits, uplinks)]
        losses = [F.cross_entropy(of_client, target) for of_client, target in zip(logits, targets)]
        torch.stack(losses).sum().backward()
        self._stack.step()
        for uplink, loss in zip(uplinks, losses):
            self._losses[uplink.client] += loss.detach().double()
            self._steps[uplink.client] += 1
        return [own.downlink(uplink, payload) for own, uplink, payload in zip(stages, uplinks, payloads)]

    def close(self, client: int, *, moments: bool) -> Closed:
        """See `ServerHost.close`."""
        return Closed(self._stack.state(self._lanes[client], moments=moments), float(self._losses[client]))

    def mean_loss(self, client: int) -> float:
        """See `ServerHost.mean_loss`."""
        return float(self._losses[client]) / max(1, self._steps[client])
