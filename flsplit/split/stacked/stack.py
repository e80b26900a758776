"""One side of several clients at once: every parameter has a leading dimension of clients, and one call runs all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from timm.layers import Attention
from torch import Tensor
from torch.func import functional_call, vmap

from flsplit.errors import UserError
from flsplit.split.side import BETAS, EPS, Side, SideState, check_size


class Stack:
    """Models of one side with their Adam, one in each lane, that go forward and are stepped together.

    A lane is loaded and read as a `Side` is. Matrix products are batched over the lanes, so a lane's numbers are those
    of a `Side` to rounding, not to the bit; they do not depend on what the other lanes hold.

    Args:
        side: what every lane is; it lends its modules and is not to be used beside.
        lanes: how many.

    Raises:
        UserError: if the model or the compressor holds something that cannot be stacked.
    """

    def __init__(self, side: Side, lanes: int) -> None:
        _check_stackable(side)
        self.stages, self.device = side.stages, side.device
        self._lr, self._mu = side.lr, side.proximal_mu
        for module in side.model.modules():
            if isinstance(module, Attention):
                module.fused_attn = False  # the fused kernels would be taken lane by lane
        named = dict(side.model.named_parameters())
        sizes = [parameter.numel() for parameter in named.values()]
        self._weights = torch.zeros(lanes, sum(sizes), device=side.device)
        self._means, self._squares, self._anchors = (torch.zeros_like(self._weights) for _ in range(3))
        self._anchored = self._weights.new_zeros(lanes, 1)  # 1 where a lane has an anchor
        self._steps = torch.zeros(lanes, 1, dtype=torch.float64, device=side.device)
        self._parameters = {
            name: part.view(lanes, *parameter.shape)
            for (name, parameter), part in zip(named.items(), self._weights.split(sizes, dim=1))
        }

        def forward(weights: dict[str, Tensor], batch: Tensor) -> tuple[Tensor, ...]:
            out = functional_call(side.model, weights, (batch,))
            return tuple(t for t in (out if isinstance(out, tuple) else (out,)) if t is not None)

        self._forward = vmap(forward, randomness="different")
        self._called: list[tuple[slice, list[Tensor]]] = []

    def __call__(self, lanes: slice, batches: Tensor) -> tuple[Tensor, ...]:
        """Run some lanes' models, each on its own batch.

        Args:
            lanes: which, one next to the other: K of them.
            batches: (K, B, ...), the input of each.

        Returns:
            the model's outputs, (K, B, ...) each, without those that are None.
        """
        weights = {name: values[lanes].detach().requires_grad_() for name, values in self._parameters.items()}
        self._called.append((lanes, list(weights.values())))
        return self._forward(weights, batches)

    @torch.no_grad()
    def step(self) -> None:
        """One Adam step (Kingma and Ba 2015, Algorithm 1) of the lanes that were called since the last one."""
        for lanes, parameters in self._called:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            self._adam(lanes, torch.cat([gradient.flatten(1) for gradient in gradients], dim=1))
        self._called.clear()

    def _adam(self, lanes: slice, gradients: Tensor) -> None:
        weights, means, squares = self._weights[lanes], self._means[lanes], self._squares[lanes]
        if self._mu:
            gradients.add_((weights - self._anchors[lanes]) * self._anchored[lanes], alpha=self._mu)
        steps = self._steps[lanes].add_(1)
        first, second = (1 - beta**steps for beta in BETAS)  # a lane's own, since clients differ in steps taken
        means.lerp_(gradients, 1 - BETAS[0])
        squares.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        roots = squares.sqrt().div_(second.sqrt().float()).add_(EPS)
        weights.sub_(means.div(roots).mul_((self._lr / first).float()))

    @property
    def trained(self) -> int:
        """See `Side.trained`; all that there is."""
        return self._weights.shape[1]

    def lane(self, index: int) -> Lane:
        """A lane, from 0."""
        return Lane(self, index)

    def load(self, lane: int, state: SideState) -> None:
        """See `Side.load`."""
        check_size(state.weights, self._weights.shape[1])
        self._weights[lane].copy_(state.weights)
        self._anchored[lane] = 0
        means, squares, steps = self._means[lane], self._squares[lane], self._steps[lane]
        if state.moments is None:
            for values in (means, squares, steps):
                values.zero_()
            return
        check_size(state.moments, 2 * len(means) + 1)
        means.copy_(state.moments[: len(means)])
        squares.copy_(state.moments[len(means) : -1])
        steps.copy_(state.moments[-1:])

    def state(self, lane: int, *, moments: bool) -> SideState:
        """See `Side.state`."""
        weights = self._weights[lane].cpu().clone()
        if not moments or not self._steps[lane]:
            return SideState(weights)
        return SideState(weights, torch.cat([self._means[lane], self._squares[lane], self._steps[lane].float()]).cpu())

    def anchor(self, lane: int) -> None:
        """See `Side.anchor`."""
        if self._mu:
            self._anchors[lane].copy_(self._weights[lane])
            self._anchored[lane] = 1

    def forget(self) -> None:
        """Drop what was called and not stepped."""
        self._called.clear()


@dataclass(frozen=True)
class Lane:
    """A client's place in a stack, to be loaded and read as a `Side` is."""

    stack: Stack
    index: int

    @property
    def trained(self) -> int:
        """See `Side.trained`."""
        return self.stack.trained

    def load(self, state: SideState) -> None:
        """See `Side.load`."""
        self.stack.load(self.index, state)

    def state(self, *, moments: bool = True) -> SideState:
        """See `Side.state`."""
        return self.stack.state(self.index, moments=moments)

    def anchor(self) -> None:
        """See `Side.anchor`."""
        self.stack.anchor(self.index)


def neighbours(lanes: Sequence[int], tensors: Sequence[Tensor]) -> Iterator[tuple[slice, slice]]:
    """Lanes that can go forward in one call: next to each other, with inputs of one shape.

    Args:
        lanes: in ascending order.
        tensors: the input of each.

    Yields:
        slices of the stack's lanes, and of `tensors`.
    """
    for _, group in groupby(range(len(lanes)), key=lambda at: (lanes[at] - at, tensors[at].shape)):
        first, *rest = group
        last = rest[-1] if rest else first
        yield slice(lanes[first], lanes[last] + 1), slice(first, last + 1)


def _check_stackable(side: Side) -> None:
    parameters = list(side.modules.parameters())
    if len(parameters) != len(list(side.model.parameters())):
        raise UserError("the compressor or a stage trains parameters of its own, which are not stacked")
    if list(side.modules.buffers()) or side.has_own:
        raise UserError("the model, the compressor or a stage has buffers, which are not stacked")
    if len(side.parameters) != len(parameters):
        raise UserError("the model has parameters that are not trained, which are not stacked")
