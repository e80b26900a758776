"""What crosses between a client and the server in one step.

All messages hold detached tensors: no autograd graph and no image ever crosses. While simulating they pass by
reference; `flsplit.split.codec` is their exact form on a wire. Where the clients of a step are compressed as one, each
step begins with an exchange, a proposal up and a grouping down.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressors import BatchShape, Payload


@dataclass(frozen=True, kw_only=True)
class Message:
    """What all have.

    Attributes:
        client: from whom, or to whom.
        shape: of the batch, before compression.
        payload: what crosses.

    Raises:
        ValueError: if a tensor still carries an autograd graph.
    """

    client: int
    shape: BatchShape
    payload: Payload

    def __post_init__(self) -> None:
        if any(t.requires_grad or t.grad_fn is not None for t in self.payload.floats):
            raise ValueError("a tensor that crosses the link must be detached from its autograd graph")


@dataclass(frozen=True, kw_only=True)
class Up(Message):
    """From a client.

    Attributes:
        round: of the run, from 1; with `step`, it names the random numbers of the message's stages.
        step: of the client's round, from 0. Neither is on the wire.
    """

    round: int = 0
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Uplink(Up):
    """One batch on its way up: what compressor and stages have made of the smashed activations."""


@dataclass(frozen=True, kw_only=True)
class Downlink(Message):
    """The answer to an uplink: gradients of the loss with respect to its floats, in their order, and through stages."""


@dataclass(frozen=True, kw_only=True)
class Proposal(Up):
    """What a client tells of a batch before it compresses, see `compressors.Cohort`."""


@dataclass(frozen=True, kw_only=True)
class Grouping(Message):
    """The answer to a proposal: how the client is to compress; its `shape` says in how many groups."""
