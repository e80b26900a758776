"""A message's way through stages, one after another: their halves, the layouts between them, and what they draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from compressors import Layout, Payload, Stage, Way, onto

Key = tuple[int, int, int]  # client, round, step
Draw = Callable[..., torch.Generator]  # of a key: the stage's name, client, round, step, way and half


@dataclass(frozen=True)
class Route:
    """Layouts of a batch's messages, stage by stage; the last of each is what crosses.

    Attributes:
        up: what reaches each stage on the way up, and what crosses.
        down: the same of the stages that gradients pass by, on the way down.
        answered: for each field of floats that gradients pass by, whether one comes back.
    """

    up: tuple[Layout, ...]
    down: tuple[Layout, ...]
    answered: tuple[bool, ...] = ()


class Passage:
    """Stages that a message passes.

    `layouts` below are always what reaches each stage in the order in which a message leaves, and what crosses.

    Args:
        stages: in that order.
        draw: the random stream of a key; not needed for layouts.
        before: whether messages are of an exchange before a step, which draws by itself.
    """

    def __init__(self, stages: Sequence[Stage], draw: Draw | None, *, before: bool = False) -> None:
        self.stages = stages
        self._draw, self._when = draw, " before" if before else ""

    def layouts(self, first: Layout, way: Way) -> list[Layout]:
        """Of a message that reaches the first stage with the layout `first`."""
        found = [first]
        for stage in self.stages:
            acts = way in stage.ways and carries(found[-1])
            found.append(stage.fields(found[-1], way) if acts else found[-1])
        return found

    def send(self, payload: Payload, layouts: Sequence[Layout], *, way: Way, key: Key) -> Payload:
        """Through the halves of the side that a message leaves."""
        for stage, layout in zip(self.stages, layouts):
            if way in stage.ways and carries(layout):
                payload = stage.send(payload, layout, way=way, **self._streams(stage, way, key, "send"))
        return payload

    def receive(self, payload: Payload, layouts: Sequence[Layout], *, way: Way, key: Key) -> Payload:
        """Through the halves of the side that a message reaches; what a stage says is lost is filled in behind it.

        Raises:
            ValueError: if a stage gives floats of other shapes than were sent, or says of others that they are lost.
        """
        for stage, layout in reversed(list(zip(self.stages, layouts))):
            if way in stage.ways and carries(layout):
                payload = stage.receive(payload, layout, way=way, **self._streams(stage, way, key, "receive"))
                wanted, found = [f.shape for f in layout.floats], [tuple(t.shape) for t in payload.floats]
                if wanted != found:
                    raise ValueError(f"{stage.name}'s receive gives floats of shapes {found}, but {wanted} were sent")
                if payload.lost is not None:
                    if not payload.lost.fits(payload.floats):
                        raise ValueError(
                            f"{stage.name}'s receive gives a payload whose `lost` is of other fields than its floats; "
                            "it must be None, or have a mask (bool, in the field's shape) or None for each"
                        )
                    payload = replace(payload, floats=payload.lost.filled(payload.floats))
        return payload

    def resent(self, layouts: Sequence[Layout], *, way: Way, key: Key) -> int:
        """Bits that stages send again beyond a message's price; 0 but for a link that loses packets.

        Raises:
            ValueError: if a stage gives another number than that.
        """
        total = 0
        for stage, layout in zip(self.stages, layouts[1:]):
            if stage.resends and way in stage.ways:
                bits = stage.resent(layout, way=way, **self._streams(stage, way, key, "again"))
                if not isinstance(bits, int) or bits < 0:
                    raise ValueError(
                        f"{stage.name}'s resent must give a whole number of bits, at least 0, got {bits!r}"
                    )
                total += bits
        return total

    def _streams(self, stage: Stage, way: Way, key: Key, half: str) -> dict[str, torch.Generator]:
        assert self._draw is not None, "stages need random streams"
        streams = {"generator": self._draw(stage.name, *key, way, half + self._when)}
        if stage.coherence is not None:
            client, round, step = key
            streams["block"] = self._draw(stage.name, client, round, step // stage.coherence, way, "block")
        return streams


def on_device(payload: Payload, device: torch.device) -> Payload:
    """A payload's tensors on a device, without their graphs."""
    labels = None if payload.labels is None else onto(payload.labels, device)
    floats = tuple(onto(t.detach(), device) for t in payload.floats)
    return Payload(floats, tuple(onto(t, device) for t in payload.integers), labels)


def carries(layout: Layout) -> bool:
    """Whether there is a message at all; there is none where no gradient comes back."""
    return bool(layout.floats or layout.integers)
