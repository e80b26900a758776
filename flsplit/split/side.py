"""One side of the split: modules, their Adam optimizer, and both as flat vectors that travel and are averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flsplit.split.packed import Packed
from flsplit.split.passes import Captured, Passes, can_be_captured
from flsplit.split.stages import Stages

BETAS, EPS = (0.9, 0.999), 1e-8
_SLOT = ("step", "exp_avg", "exp_avg_sq")  # Adam's state of a parameter
_PIECE = 1 << 17  # floats that Adam steps at a time on a CPU: all that it needs of them stays in a core's cache


@dataclass(frozen=True)
class SideState:
    """A side at rest, on the CPU.

    `weights`: (P,) fp32, what travels: first all that is trained, then floating buffers, in the modules' order.
    `moments`: (2 Q + 1,) fp32, Adam's first and second moments of the Q trained numbers, and its step count; None
    before the first step, or where they stay behind.
    `own`: (R,) fp32, buffers that stay with their client; None where there are none, or they stay behind.
    """

    weights: Tensor
    moments: Tensor | None = None
    own: Tensor | None = None

    @property
    def finite(self) -> bool:
        """Whether every number is: no NaN, no infinity."""
        return all(is_finite(values) for values in (self.weights, self.moments, self.own) if values is not None)


class Side:
    """The model of one side, the compressor as that side has it, and one optimizer over both.

    States are loaded in place, so that one side serves many clients one after another. Weights, gradients and moments
    each lie in one piece of memory, so that Adam is a few operations whatever the number of parameters; it is
    elementwise, so the numbers are those of `torch.optim.Adam` over the parameters, to the bit on a CPU. A parameter
    that a step does not use has a gradient of 0, not none.

    What is not trained keeps the values that `model` came with: it neither travels nor changes. A model of which
    nothing is trained is in evaluation mode, so that neither do its running statistics.

    Args:
        model: client-side or server-side model; what requires a gradient is trained.
        stages: instances of this side's own.
        halves: modules of the stages that are trained with the model.
        own: modules whose buffers stay with their client.
        lr: Adam's step size.
        device: where it computes.
        proximal_mu: weight of FedProx's proximal term, mu/2 |w - w_0|^2 (Li et al. 2020, arXiv 1812.06127), from
            `anchor` on.
    """

    def __init__(
        self,
        model: nn.Module,
        stages: Stages,
        *,
        halves: Iterable[nn.Module] = (),
        own: Iterable[nn.Module] = (),
        lr: float,
        device: torch.device,
        proximal_mu: float = 0.0,
    ) -> None:
        self.model, self.stages, self.device = model, stages, device
        self.passes = Passes(model)
        model.train(is_trained(model))
        self.modules = nn.ModuleList([model, *halves]).to(device)
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        kept = list(_buffers(nn.ModuleList(own).to(device)).values())
        fixed = [] if model.training else list(_buffers(model).values())
        self._fixed = sum(buffer.numel() for buffer in fixed)
        travels = [t for t in _buffers(self.modules).values() if not any(t is buffer for buffer in (*kept, *fixed))]
        self._weights, self._own = _in_place([*self.parameters, *travels], device), _in_place(kept, device)
        self._initial_own = self._own.read()
        zeros = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._gradients, self._means, self._squares = (Packed(zeros, device) for _ in range(3))
        for parameter, view in zip(self.parameters, self._gradients.views):
            parameter.grad = view
        self._trained = self._weights.memory[: len(self._gradients.memory)]
        self.lr, self.proximal_mu = lr, proximal_mu
        self._anchor: Tensor | None = None
        self._before = self._buffers.clone()
        self._adam: torch.optim.Adam | None = None
        self._steps = torch.zeros(1)
        if self.parameters:
            self._adam, self._steps = self._make_adam()
        self._load_moments(None)

    def _make_adam(self) -> tuple[torch.optim.Adam, Tensor]:
        """Adam over pieces of memory, and its step counts; on a GPU a step is one launch, which wants them there."""
        length = _PIECE if self.device.type == "cpu" else len(self._trained)
        fused = self.device.type == "cuda"
        whole = (self._trained, self._gradients.memory, self._means.memory, self._squares.memory)
        pieces = list(zip(*(memory.split(length) for memory in whole)))
        steps = torch.zeros(len(pieces), device=self.device if fused else "cpu")
        weights = [nn.Parameter(weights) for weights, *_ in pieces]
        adam = torch.optim.Adam(weights, lr=self.lr, betas=BETAS, eps=EPS, fused=True if fused else None)
        for parameter, step, (_, gradient, *moments) in zip(weights, steps, pieces):
            parameter.grad = gradient
            adam.state[parameter] = dict(zip(_SLOT, (step, *moments)))
        return adam, steps

    @property
    def size(self) -> int:
        """P, the number of floats that travel."""
        return self._weights.size

    @property
    def trained(self) -> int:
        """Q, the number of floats that are trained; they come first among those that travel."""
        return self._gradients.size

    @property
    def stays(self) -> int:
        """Floats of the model that travel once, if at all: what is not trained, and buffers of its own."""
        return sum(p.numel() for p in self.modules.parameters() if not p.requires_grad) + self._own.size + self._fixed

    @property
    def has_own(self) -> bool:
        """Whether there is anything that stays with its client."""
        return self._own.size > 0

    @property
    def _buffers(self) -> Tensor:
        """The buffers that travel, one after another."""
        return self._weights.memory[len(self._trained) :]

    def step(self) -> None:
        """One optimizer step on the gradients at hand, which it consumes; none where nothing is trained."""
        self.passes.done()
        if self._adam is None:
            return
        if self._anchor is not None:
            self._gradients.memory.add_(self._trained - self._anchor, alpha=self.proximal_mu)
        self._adam.step()
        self._gradients.clear()
        self._has_moments = True

    @torch.no_grad()
    def brace(self) -> None:
        """Remember the buffers, which a forward pass may change, for a `step_if_finite`."""
        self._before.copy_(self._buffers)

    @torch.no_grad()
    def step_if_finite(self) -> None:
        """`step`, unless a gradient or a buffer is not finite: then all is as it was at `brace`.

        So one client cannot spoil a side that many step. Other devices than the CPU are not waited for, and therefore a
        step that was not taken still counts in Adam's bias correction there.
        """
        if self.device.type == "cpu":
            if is_finite(self._gradients.memory) and is_finite(self._buffers):
                self.step()
            else:
                self.forget()
                self._buffers.copy_(self._before)
            return
        finite = torch.isfinite(torch.cat([self._gradients.memory, self._buffers]).abs().sum())
        values = (self._trained, self._means.memory, self._squares.memory)
        before = [value.clone() for value in values]
        self.step()
        for value, old in zip((*values, self._buffers), (*before, self._before)):
            value.copy_(torch.where(finite, value, old))

    @torch.no_grad()
    def state(self, *, moments: bool = True) -> SideState:
        """A copy of weights and own buffers and, if wanted and there are any, of the moments."""
        weights, own = self._weights.read(), self._own.read() if self.has_own else None
        if not moments or not self._has_moments:
            return SideState(weights, own=own)
        count = self._means.size
        held = torch.empty(2 * count + 1)
        self._means.read_into(held[:count])
        self._squares.read_into(held[count:-1])
        held[-1] = self._steps[0]
        return SideState(weights, held, own)

    @torch.no_grad()
    def load(self, state: SideState) -> None:
        """Take over a state; without moments the optimizer starts afresh, without own buffers these do.

        Raises:
            ValueError: if the state is of another model.
        """
        check_size(state.weights, self.size)
        self._weights.write(state.weights)
        own = self._initial_own if state.own is None else state.own
        check_size(own, self._own.size)
        self._own.write(own)
        self.forget()
        self._anchor = None
        self._load_moments(state.moments)

    def capture(self) -> None:
        """Let the model's passes become CUDA graphs; without effect where they cannot."""
        if can_be_captured(self.model):
            self.passes = Captured(self.model)

    def forget(self) -> None:
        """Drop the gradients of a step that was never taken, because its client failed on the way back."""
        self.passes.done()
        self._gradients.clear()

    def anchor(self) -> None:
        """Let the proximal term, if there is one, pull towards the weights as they are now, until the next `load`."""
        if self.proximal_mu:
            self._anchor = self._trained.clone()

    def _load_moments(self, moments: Tensor | None) -> None:
        self._has_moments = moments is not None
        if moments is None:
            for values in (self._means, self._squares):
                values.clear()
            self._steps.zero_()
            return
        count = self._means.size
        check_size(moments, 2 * count + 1)
        self._means.write(moments[:count])
        self._squares.write(moments[count : 2 * count])
        self._steps.fill_(moments[-1])


def is_trained(model: nn.Module) -> bool:
    """Whether anything of a model is."""
    return any(parameter.requires_grad for parameter in model.parameters())


def _buffers(modules: nn.Module) -> dict[str, Tensor]:
    """Floating buffers that are part of a model's state, by name."""
    kept = modules.state_dict(keep_vars=True)
    return {name: t for name, t in modules.named_buffers() if name in kept and t.is_floating_point()}


def unkept(modules: nn.Module) -> dict[str, Tensor]:
    """What is part of a model's state and not of float32, as all in a `SideState` is: buffers and weights, by name.

    Weights that are not trained are none of it, for they stay where they are, nor is a normalisation's count of batches
    where it has a momentum: nothing reads it then.
    """
    kept = modules.state_dict(keep_vars=True)
    normalised = [at for at, module in modules.named_modules() if getattr(module, "momentum", None) is not None]
    unread = {f"{at}.num_batches_tracked".removeprefix(".") for at in normalised}
    state = {name: t for name, t in modules.named_buffers() if name in kept and name not in unread}
    state |= {name: t for name, t in modules.named_parameters() if t.requires_grad}
    return {name: t for name, t in state.items() if t.dtype != torch.float32}


def _in_place(tensors: list[Tensor], device: torch.device) -> Packed:
    """Move the memory of modules' tensors together."""
    packed = Packed(tensors, device)
    for tensor, view in zip(tensors, packed.views):
        tensor.data = view
    return packed


def is_finite(values: Tensor) -> bool:
    """Whether there is neither NaN nor infinity in a tensor (waits for its device)."""
    if math.isfinite(values.sum()):  # of finite values alone; no faster look at all of them was found
        return True
    least, most = torch.aminmax(values)  # the sum of finite values may be too large
    return math.isfinite(least) and math.isfinite(most)


def check_size(vector: Tensor, size: int) -> None:
    """Refuse a state of another model.

    Raises:
        ValueError: if the vector does not have `size` floats.
    """
    if vector.numel() != size:
        raise ValueError(f"a state of {vector.numel()} floats does not fit {size}")
