"""Compression across clients: what the clients of a step, and the server, tell one another before they send.

A step then has an exchange before its uplink: every client sends a proposal, the server answers each with its share of
a plan that it has made of all proposals, and clients compress as they were told.

Legend of shapes: B samples of a client, N tokens, D width, L labels, T clusters of all clients, G those of one client.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compressors.interface import BatchShape, Layout, Payload


@dataclass(frozen=True, eq=False)
class Share:
    """A client's share of a plan.

    Attributes:
        told: what the client is told, integers alone.
        clusters: which of all clusters each of its groups is in, (G,) int64; this stays with the server.
        labels: of the client's samples (B,) int64, as it has proposed them.
    """

    told: Payload
    clusters: Tensor
    labels: Tensor

    @property
    def groups(self) -> int:
        """G, the activations that the client sends."""
        return len(self.clusters)


@dataclass(frozen=True, eq=False)
class Joined:
    """What the server-side model is trained on, from all clients together.

    Attributes:
        activations: one for each cluster, differentiable with respect to what was received.
        targets: of each, see `Compressor.decompress`.
        rows: for each client, in which of them its samples are, (G,) int64.
        members: for each client, how many of its samples are in each of `rows`, (G,), where that is what an activation
            counts in the loss; None where all count alike.
    """

    activations: Tensor
    targets: Tensor
    rows: tuple[Tensor, ...]
    members: tuple[Tensor, ...] | None = None


class Cohort(ABC):
    """Client half and server half of a compressor whose clients compress as one, and the price of each message.

    What clients and server tell one another beforehand has no gradient, no stage disturbs it, and it is paid for.
    """

    @abstractmethod
    def propose(self, z: Tensor, y: Tensor, s: Tensor | None) -> Payload:
        """Client: what the plan is made of, and the labels.

        Args:
            z: activations (B, N, D).
            y: labels (B,).
            s: CLS attention (B, N), where the compressor needs it.
        """

    @abstractmethod
    def proposal(self, shape: BatchShape) -> Layout:
        """Of what `propose` sends."""

    @abstractmethod
    def plan(self, proposals: Sequence[Payload], *, generator: torch.Generator | None = None) -> list[Share]:
        """Server: a share for each client, whatever the values that they propose.

        Args:
            proposals: of all clients of a step, on one device.
            generator: source of every random choice made here; the global one if None.
        """

    @abstractmethod
    def answer(self, shape: BatchShape) -> Layout:
        """Of what a client of `shape.groups` groups is told."""

    @abstractmethod
    def compress(self, z: Tensor, told: Payload) -> Payload:
        """Client: what is sent for one batch, whose labels the server has; see `Compressor.compress`.

        Args:
            z: activations (B, N, D), with their graph.
            told: of the client's share.
        """

    @abstractmethod
    def layout(self, shape: BatchShape) -> Layout:
        """Of what `compress` sends in `shape.groups` groups."""

    @abstractmethod
    def join(self, payloads: Sequence[Payload], shares: Sequence[Share], classes: int) -> Joined:
        """Server: one batch of what has come; clients that had a share and sent nothing are left out of it.

        Args:
            payloads: of the clients that are there; the result is differentiable with respect to their floats.
            shares: theirs.
            classes: L.
        """

    def bounds(self, shape: BatchShape) -> tuple[BatchShape, BatchShape]:
        """The batch in as few and in as many groups as it can have, where its price is asked for before its share."""
        return replace(shape, groups=1), replace(shape, groups=shape.batch)
