"""A link that loses packets."""

from __future__ import annotations

import torch

from compressors.channels.interface import Channel, disturbed
from compressors.channels.packets import Losses, erased, packets
from compressors.interface import Layout, Payload
from compressors.lost import FILLS
from compressors.options import choice, fraction
from compressors.stage import Way


class Erasure(Channel):
    """Messages cross in packets, of which some do not arrive.

    Without `retransmit`, values that were in a lost packet are filled in (behind a quantiser once it has decoded the
    others), their gradients are zeros, and what is protected always arrives. With it, every packet is sent again until
    it has arrived: no value changes, nothing needs protection, and the bits that were lost are counted in
    `retransmitted_bits`. Packets have no headers here, and are filled in the order of the wire. Each message finds the
    link in a state of its own: a burst does not outlast the message.

    Args:
        packet_bytes: size of a packet.
        loss: share of packets that are lost, in [0, 1]; below 1 with `retransmit`.
        burst: mean length of a burst of losses, in packets (Gilbert-Elliott); None: they do not depend on each other.
        retransmit: whether lost packets are sent again.
        fill: without `retransmit`, what lost values are: `zero`, or `last`: the last that arrived at the same place of
            the last dimension (the token before; of Top-K and SplitFC, the sample before).
        protect: whether labels, indices and ranges arrive for certain, at the price of `code_rate`; if not, those that
            are lost are 0 (ranges with `last`: the one before).
        up: whether activations can be lost.
        down: whether gradients can.
        code_rate: of what is protected.
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for a value that cannot be.
    """

    def __init__(
        self, *, packet_bytes: int = 1500, loss: float = 0.01, burst: float | None = None, retransmit: bool = False,
        fill: str = "zero", protect: bool = True, up: bool = True, down: bool = True, code_rate: float = 0.5,
        at_eval: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(up=up, down=down, code_rate=code_rate, at_eval=at_eval)
        if packet_bytes < 1:
            raise ValueError(f"channel.packet_bytes must be at least 1, got {packet_bytes}")
        self._size = packet_bytes
        self._losses = Losses(fraction("loss", loss, zero=True, one=not retransmit, group="channel"), burst)
        self._fill = choice("fill", fill, FILLS, group="channel")
        self.resends, self.protect = retransmit, protect and not retransmit

    def receive(self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator) -> Payload:
        """Lose what is lost."""
        received = self._received(payload, layout)
        if self.resends:
            return received
        spans = disturbed(layout, protect=self.protect)
        lost = self._losses.draw(len(packets(spans, self._size)), generator)
        return erased(received, spans, lost, self._size, self._fill)

    def resent(self, layout: Layout, *, way: Way, generator: torch.Generator) -> int:
        """Bits of the packets that were lost before all had arrived."""
        sizes = packets(disturbed(layout, protect=False), self._size)
        bits, at = 0, 0
        for lost, length in self._losses.runs(generator):
            if at >= len(sizes):
                break
            if lost:
                bits += sizes[at] * length
            else:
                at += length
        return bits
