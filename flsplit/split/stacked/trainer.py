"""The clients' half of a training step for clients that are stacked, as a generator: `downlinks = yield uplinks`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, count, repeat

import torch
from torch import Tensor

from compressors import Payload
from flsplit.errors import no_exit
from flsplit.split.messages import Downlink, Uplink
from flsplit.split.stacked.stack import Stack, neighbours
from flsplit.split.stages import Stages, go_back
from flsplit.split.trainer import shape_of

StackedPass = Generator[list[Uplink], list[Downlink], None]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the clients of a stacked pass.

    Attributes:
        client: who.
        batches: pairs of images (B, 3, S, S) and hard labels (B,), on the stack's device.
        stream: the random stream of a step, for compressors that draw.
        stages: what its batches go through, as the client has it.
        look: called with each uplink before it is sent; raises what the client fails of.
        fail: called with what these raised; the client drops out, which is no fault of the others.
    """

    client: int
    batches: Iterable[tuple[Tensor, Tensor]]
    stream: Callable[[int], torch.Generator]
    stages: Stages
    look: Callable[[Uplink], None]
    fail: Callable[[Exception], None]


def stacked_pass(
    stack: Stack,
    members: Sequence[Member],
    *,
    round: int,
    classes: int,
    autocast: Callable[[], AbstractContextManager[object]],
) -> StackedPass:
    """Train the client-side models of several clients, a batch of each at a time; who has none left drops out.

    Args:
        stack: of client sides.
        members: the clients, in the order of the stack's lanes.
        round: of the run, from 1.
        classes: L, number of labels.
        autocast: context of the forward pass.

    Yields:
        one `Uplink` of each client that has a batch; expects their `Downlink`s, in this order.
    """
    batches = {lane: iter(member.batches) for lane, member in enumerate(members)}
    for step in count():
        drawn = {lane: batch for lane, own in batches.items() if (batch := next(own, None)) is not None}
        batches = {lane: batches[lane] for lane in drawn}
        if not drawn:
            return
        lanes, images = list(drawn), [images for images, _ in drawn.values()]
        sent: list[tuple[Member, Payload, Uplink]] = []
        with autocast():
            for rows, positions in neighbours(lanes, images):
                z, *scores = stack(rows, torch.stack(images[positions]))
                each = zip(lanes[positions], z.unbind(), scores[0].unbind() if scores else repeat(None))
                for lane, activations, attention in each:
                    member, labels = members[lane], drawn[lane][1]
                    shape, key = shape_of(activations, classes), (member.client, round, step)
                    try:
                        with no_exit():
                            payload = member.stages.compress(
                                activations, labels, attention, shape, generator=member.stream(step), key=key
                            )
                            uplink = member.stages.uplink(payload, shape, key=key)
                            member.look(uplink)
                        sent.append((member, payload, uplink))
                    except Exception as error:
                        member.fail(error)
                        del batches[lane]
        if sent:
            downlinks = yield [uplink for *_, uplink in sent]
            pairs = (member.stages.answered(p, up, down) for (member, p, up), down in zip(sent, downlinks, strict=True))
            go_back(list(chain.from_iterable(pairs)))
        stack.step()
