"""What crosses between a client and the server in one step.

Both messages hold detached tensors: no autograd graph and no image ever crosses. While simulating they pass by
reference; `flsplit.split.codec` is their exact form on a wire.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressors import BatchShape, Payload


@dataclass(frozen=True, kw_only=True)
class Uplink:
    """One batch on its way up: what compressor and stages have made of the smashed activations.

    Attributes:
        client: from whom.
        shape: of the batch, before compression.
        payload: what crosses.
        round: of the run, from 1; with `step`, it names the random numbers of the message's stages.
        step: of the client's round, from 0. Neither is on the wire.

    Raises:
        ValueError: if a tensor still carries an autograd graph.
    """

    client: int
    shape: BatchShape
    payload: Payload
    round: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        _refuse_graphs(self.payload)


@dataclass(frozen=True, kw_only=True)
class Downlink:
    """The answer to an uplink: gradients of the loss with respect to its floats, in their order, and through stages.

    Attributes:
        client: to whom.
        shape: of the batch that was compressed.
        payload: what crosses.
    """

    client: int
    shape: BatchShape
    payload: Payload

    def __post_init__(self) -> None:
        _refuse_graphs(self.payload)


def _refuse_graphs(payload: Payload) -> None:
    if any(t.requires_grad or t.grad_fn is not None for t in payload.floats):
        raise ValueError("a tensor that crosses the link must be detached from its autograd graph")
