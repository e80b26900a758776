"""One side of the split: modules, their Adam optimizer, and both as flat vectors that travel and are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressors import Compressor

BETAS, EPS = (0.9, 0.999), 1e-8


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
        self._tensors = [t for t in self.modules.state_dict(keep_vars=True).values() if t.is_floating_point()]
        self._mu, self._anchor = proximal_mu, list[Tensor]()
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, betas=BETAS, eps=EPS)

    @property
    def size(self) -> int:
        """P, the number of floats that make up the weights."""
        return sum(t.numel() for t in self._tensors)

    def step(self) -> None:
        """One optimizer step on the gradients at hand, which it consumes."""
        for parameter, start in zip(self.parameters, self._anchor):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self._mu)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def state(self, *, moments: bool = True) -> SideState:
        """A copy of the weights and, if wanted and there are any, of the moments."""
        weights = _flatten(self._tensors)
        if not moments or not self.optimizer.state:
            return SideState(weights)
        slots = self._slots()
        return SideState(
            weights, torch.cat([_flatten([s[name] for s in slots]) for name in ("exp_avg", "exp_avg_sq", "step")])
        )

    @torch.no_grad()
    def load(self, state: SideState) -> None:
        """Take over weights and moments; without moments the optimizer starts afresh.

        Raises:
            ValueError: if the state is of another model.
        """
        _unflatten(state.weights, self._tensors)
        self._anchor = []
        self.load_moments(state.moments)

    def anchor(self) -> None:
        """Let the proximal term, if there is one, pull towards the weights as they are now, until the next `load`."""
        if self._mu:
            self._anchor = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def load_moments(self, moments: Tensor | None) -> None:
        """Take over the optimizer's moments, or forget them (`None`)."""
        if moments is None:
            self.optimizer.state.clear()
            return
        slots = self._slots()
        count = sum(p.numel() for p in self.parameters)
        _unflatten(moments[:count], [s["exp_avg"] for s in slots])
        _unflatten(moments[count : 2 * count], [s["exp_avg_sq"] for s in slots])
        _unflatten(moments[2 * count :], [s["step"] for s in slots])

    def _slots(self) -> list[dict[str, Tensor]]:
        """Adam's state per parameter, made where Adam has not yet (it makes them at the first step)."""
        slots = []
        for parameter in self.parameters:
            slot = self.optimizer.state[parameter]
            if not slot:
                slot["step"] = torch.tensor(0.0)
                slot["exp_avg"] = torch.zeros_like(parameter)
                slot["exp_avg_sq"] = torch.zeros_like(parameter)
            slots.append(slot)
        return slots


def _flatten(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1).float() for t in tensors]).cpu()


def _unflatten(vector: Tensor, tensors: list[Tensor]) -> None:
    if vector.numel() != sum(t.numel() for t in tensors):
        raise ValueError(f"a state of {vector.numel()} floats does not fit {sum(t.numel() for t in tensors)}")
    if tensors:
        parts = vector.to(tensors[0].device, non_blocking=True).split([t.numel() for t in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors)])
