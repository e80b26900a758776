"""One side of the split: modules, their Adam optimizer, and both as flat vectors that travel and are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressors import Compressor
from flsplit.split.packed import Packed

BETAS, EPS = (0.9, 0.999), 1e-8
_SLOT = ("step", "exp_avg", "exp_avg_sq")  # Adam's state of a parameter


@dataclass(frozen=True)
class SideState:
    """A side at rest, on the CPU.

    `weights`: (P,) fp32, all parameters and floating buffers, in the modules' order.
    `moments`: (2 Q + q,) fp32, Adam's first and second moments of the q parameters (Q numbers) and their step
    counts; None before the first step, or where they stay behind.
    """

    weights: Tensor
    moments: Tensor | None = None


class Side:
    """The model of one side, the compressor as that side has it, and one optimizer over both.

    States are loaded in place, so that one side serves many clients one after another.

    Args:
        model: client-side or server-side model.
        compressor: an instance of this side's own.
        half: the compressor's trainable half that lives here, if it has one.
        lr: Adam's step size.
        device: where it computes.
        proximal_mu: weight of FedProx's proximal term, mu/2 |w - w_0|^2 (Li et al. 2020, arXiv 1812.06127), from
            `anchor` on.
    """

    def __init__(
        self,
        model: nn.Module,
        compressor: Compressor,
        half: nn.Module | None,
        *,
        lr: float,
        device: torch.device,
        proximal_mu: float = 0.0,
    ) -> None:
        self.model = model
        self.compressor = compressor
        self.device = device
        self.modules = nn.ModuleList([model] if half is None else [model, half]).to(device)
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        tensors = [t for t in self.modules.state_dict(keep_vars=True).values() if t.is_floating_point()]
        self._weights = _in_place(tensors)
        self.lr, self.proximal_mu = lr, proximal_mu
        self._anchor: list[Tensor] = []
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, betas=BETAS, eps=EPS)
        self._means, self._squares = Packed(self.parameters), Packed(self.parameters)
        self._steps = torch.zeros(len(self.parameters))  # on the CPU, where Adam counts
        for parameter, *slot in zip(self.parameters, self._steps, self._means.views, self._squares.views):
            self.optimizer.state[parameter] = dict(zip(_SLOT, slot))
        self._load_moments(None)

    @property
    def size(self) -> int:
        """P, the number of floats that make up the weights."""
        return self._weights.size

    def step(self) -> None:
        """One optimizer step on the gradients at hand, which it consumes."""
        for parameter, start in zip(self.parameters, self._anchor):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self.proximal_mu)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._has_moments = True

    @torch.no_grad()
    def state(self, *, moments: bool = True) -> SideState:
        """A copy of the weights and, if wanted and there are any, of the moments."""
        weights = self._weights.read()
        if not moments or not self._has_moments:
            return SideState(weights)
        return SideState(weights, torch.cat([self._means.read(), self._squares.read(), self._steps]))

    @torch.no_grad()
    def load(self, state: SideState) -> None:
        """Take over weights and moments; without moments the optimizer starts afresh.

        Raises:
            ValueError: if the state is of another model.
        """
        check_size(state.weights, self.size)
        self._weights.write(state.weights)
        self._anchor = []
        self._load_moments(state.moments)

    def anchor(self) -> None:
        """Let the proximal term, if there is one, pull towards the weights as they are now, until the next `load`."""
        if self.proximal_mu:
            self._anchor = [parameter.detach().clone() for parameter in self.parameters]

    def _load_moments(self, moments: Tensor | None) -> None:
        self._has_moments = moments is not None
        if moments is None:
            for values in (self._means, self._squares):
                values.clear()
            self._steps.zero_()
            return
        count = self._means.size
        check_size(moments, 2 * count + len(self._steps))
        self._means.write(moments[:count])
        self._squares.write(moments[count : 2 * count])
        self._steps.copy_(moments[2 * count :])


def _in_place(tensors: list[Tensor]) -> Packed:
    """Move the memory of modules' tensors together."""
    packed = Packed(tensors)
    for tensor, view in zip(tensors, packed.views):
        tensor.data = view
    return packed


def check_size(vector: Tensor, size: int) -> None:
    """Refuse a state of another model.

    Raises:
        ValueError: if the vector does not have `size` floats.
    """
    if vector.numel() != size:
        raise ValueError(f"a state of {vector.numel()} floats does not fit {size}")
