"""The client's half of a training step, as a generator: `downlink = yield uplink`.

Where clients are compressed as one, `grouping = yield proposal` comes before. Whoever drives the generator decides what
runs beside it: one client to its end, or several in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from compressors import BatchShape
from flsplit.split.messages import Downlink, Grouping, Proposal, Uplink
from flsplit.split.side import Side
from flsplit.split.stages import Draws, Stages, go_back, undrawn

LocalPass = Generator[Proposal | Uplink | None, Grouping | Downlink | None, None]


def local_pass(
    side: Side,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    client: int,
    round: int,
    classes: int,
    stages: Stages,
    stream: Callable[[int], torch.Generator],
    autocast: Callable[[], AbstractContextManager[object]],
    draws: Draws = undrawn,
    shared: bool = False,
) -> LocalPass:
    """Train the client-side model on `batches`, one step each.

    Args:
        side: the client side: model, halves of its stages, and their optimizer.
        batches: pairs of images (B, 3, S, S) and hard labels (B,), on the side's device.
        client: who this is.
        round: of the run, from 1.
        classes: L, number of labels.
        stages: what a batch goes through, as the client has it.
        stream: the random stream of a step, for compressors that draw.
        autocast: context of the forward pass.
        draws: context of what the model draws in a forward pass, by key.
        shared: whether several clients train this side together: their gradients add up, and whoever drives them
            steps it.

    Yields:
        one `Uplink` of detached tensors a step; expects the `Downlink` with their gradients. With `shared`, None
        after each: then the gradients are there. Where the compressor has a cohort, a `Proposal` before each; expects
        the `Grouping`.
    """
    for step, (images, labels) in enumerate(batches):
        key = (client, round, step)
        with autocast(), draws(key):
            z, scores = side.passes(images)
        shape, told = shape_of(z, classes), None
        if stages.exchange is not None:
            grouping = yield stages.exchange.propose(z, labels, scores, shape, key=key)
            assert isinstance(grouping, Grouping)
            shape, told = grouping.shape, stages.exchange.told(grouping, z.device)
        with autocast():
            payload = stages.compress(z, labels, scores, shape, generator=stream(step), key=key, told=told)
        uplink = stages.uplink(payload, shape, key=key)
        downlink = yield uplink
        assert isinstance(downlink, Downlink)
        go_back(list(stages.answered(payload, uplink, downlink)))
        if shared:
            yield None
        else:
            side.step()


def shape_of(z: Tensor, classes: int) -> BatchShape:
    """Shape of activations (B, N, D)."""
    return BatchShape(batch=z.shape[0], tokens=z.shape[1], width=z.shape[2], classes=classes)
