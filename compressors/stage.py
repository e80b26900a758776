"""What a message goes through behind the compressor: a quantiser, a channel, or whatever stands in their place.

A stage is two halves and a price, as a compressor is: `send` on the side that a message leaves, `receive` on the side
that it reaches. Uplink and downlink are messages alike: activations go up, their gradients come down.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

from compressors.interface import BatchShape, Layout, Payload

Way = Literal["up", "down"]


class Stage(ABC):
    """One stage. What it does not override passes unchanged, at no price.

    Gradients pass by a stage, straight through: the gradient with respect to what `receive` has made of the uplink is
    that of what went into `send`; but zero for values that `receive` says are lost (`Payload.lost`). With `trained`,
    autograd goes through both halves instead, which is how parameters of theirs are trained; such a stage acts on the
    uplink alone (its gradients are the downlink) and comes before all stages that gradients pass by.

    Attributes:
        name: last part of the module that defines the class.
        ways: on which messages it acts: `up` (activations), `down` (gradients), both, or none of them.
        trained: whether gradients go through it.
        at_eval: whether models are evaluated through it as well, in columns of their own.
        coherence: steps for which something random stays as it is (fading); None for nothing. With it, `send` and
            `receive` also get `block`, a generator that is the same for so many steps of a client's round.
        resends: whether it sends some bits more than once, as `resent` tells.
        guards: whether it is the way that messages take, so that those pay for it as well that pass it unchanged:
            what clients and server tell one another before they compress (`Cohort`).
        client_half: parameters that are trained, travel and are averaged with the client-side model (`trained`), and
            buffers: state that stays with its client from step to step and from round to round, in floats.
        server_half: parameters and buffers, in floats, that live with the server-side model.
    """

    name: ClassVar[str]
    trained: ClassVar[bool] = False
    ways: tuple[Way, ...] = ("up", "down")
    at_eval: bool = False
    coherence: int | None = None
    resends: bool = False
    guards: ClassVar[bool] = False
    client_half: nn.Module | None = None
    server_half: nn.Module | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__module__.rpartition(".")[2]

    def bind(self, layout: Layout, shape: BatchShape, *, generator: torch.Generator) -> Self:
        """Create what depends on the model: parameters and state; called once for each side, with equal generators.

        Args:
            layout: of the uplink that reaches the stage, for a batch of the run's size.
            shape: of that batch.
            generator: source of every random choice made here.

        Returns:
            the stage itself.

        Raises:
            ValueError: in one line that names the option, if it cannot work on such messages.
        """
        return self

    def fields(self, layout: Layout, way: Way) -> Layout:
        """What `send` makes of a message of this layout: this is the price.

        A field of floats that has a gradient and the fields made of it count once: gradients that come back are those
        of the fields that went into the first stage that they pass by.
        """
        return layout

    def resent(self, layout: Layout, *, way: Way, generator: torch.Generator) -> int:
        """Bits that are sent beyond `layout`, which is what leaves this stage, with `resends`.

        Args:
            layout: what `fields` has returned.
            way: up or down.
            generator: of this message; another one than `send` and `receive` have had.
        """
        return 0

    def nominal(self, way: Way) -> float:
        """Factor on the compressor's nominal price (the paper's Table 1): bits per value over 32.

        It is asked for each of `ways`; with `trained` for both, since the gradients of what goes up come down.
        """
        return 1.0

    def send(self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator) -> Payload:
        """The half on the side that a message leaves: the client's on its way up, the server's on its way down.

        Args:
            payload: fp32 floats and int64 integers, on the side's device. Without `trained`, there is no graph.
            layout: of `payload`.
            way: up or down.
            generator: of this message; the CPU's, as all are.
        """
        return payload

    def receive(self, payload: Payload, layout: Layout, *, way: Way, generator: torch.Generator) -> Payload:
        """The half on the side that a message reaches; what it returns has the fields that went into `send`.

        Args:
            payload: what `send` has made; its `lost` says what of that has been lost behind this stage. It is forgotten
                unless it is passed on for the fields that are returned, whose floats are then filled in.
            layout: of what went into `send`, and of what is returned.
            way: up or down.
            generator: of this message; another one than `send` has had.
        """
        return payload
