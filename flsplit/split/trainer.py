"""The client's half of a training step, as a generator: `downlink = yield uplink`.

Whoever drives the generator decides what runs beside it: one client to its end, or several in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from compressors import BatchShape, Compressor, Payload
from flsplit.split.messages import Downlink, Uplink
from flsplit.split.side import Side

LocalPass = Generator[Uplink | None, Downlink | None, None]


def local_pass(
    side: Side,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    client: int,
    classes: int,
    stream: Callable[[int], torch.Generator],
    autocast: Callable[[], AbstractContextManager[object]],
    shared: bool = False,
    compressor: Compressor | None = None,
) -> LocalPass:
    """Train the client-side model on `batches`, one step each.

    Args:
        side: the client side: model, compressor and their optimizer.
        batches: pairs of images (B, 3, S, S) and hard labels (B,), on the side's device.
        client: who this is.
        classes: L, number of labels.
        stream: the random stream of a step, for compressors that draw.
        autocast: context of the forward pass.
        shared: whether several clients train this side together: their gradients add up, and whoever drives them
            steps it.
        compressor: of a client that has its own; None for the side's.

    Yields:
        one `Uplink` of detached tensors a step; expects the `Downlink` with their gradients. With `shared`, None
        after each: then the gradients are there.
    """
    for step, (images, labels) in enumerate(batches):
        with autocast():
            z, scores = side.model(images)
            payload = (compressor or side.compressor).compress(z, labels, scores, generator=stream(step))
        downlink = yield uplink_of(client, z, payload, classes)
        assert downlink is not None
        go_back([payload], [downlink])
        if shared:
            yield None
        else:
            side.step()


def uplink_of(client: int, z: Tensor, payload: Payload, classes: int) -> Uplink:
    """What a client sends of activations `z` (B, N, D), compressed to `payload`: detached."""
    shape = BatchShape(batch=z.shape[0], tokens=z.shape[1], width=z.shape[2], classes=classes)
    sent = Payload(tuple(t.detach() for t in payload.floats), payload.integers)
    return Uplink(client=client, shape=shape, payload=sent)


def go_back(payloads: Sequence[Payload], downlinks: Sequence[Downlink]) -> None:
    """Go backward from what was sent with the gradients that have come for it."""
    floats = [t for payload in payloads for t in payload.floats]
    gradients = [gradient for downlink in downlinks for gradient in downlink.gradients]
    torch.autograd.backward(floats, [g.to(t.device, t.dtype) for g, t in zip(gradients, floats, strict=True)])
