"""How a model goes forward and backward in training: operation by operation, or as CUDA graphs.

A step of a small model is about a thousand launches, which take Python longer than the GPU. Captured, a model's forward
pass is one launch and its backward pass another, whatever it is made of.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

OFTEN = 8  # passes over inputs of one shape, from which on it is worth the second that capturing takes
MOST = 4  # shapes of one model that are captured; each keeps its activations
_Key = tuple[torch.Size, torch.dtype, bool]


class Passes:
    """A model, called as it is.

    Args:
        model: the client-side or server-side model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Any:
        """Go forward: what the model makes of a batch."""
        return self.model(x)

    def done(self) -> None:
        """The step that a pass was for is over: its backward pass has been, or never comes."""


class Captured(Passes):
    """A model whose passes are replayed, once a shape of its input has come often.

    The weights stay where they are, so that a captured pass computes with whatever has been loaded into them. A capture
    is used only if it gives the model's own outputs and gradients, to the bit; otherwise, and for any other shape, the
    model is called. So it is while a captured pass waits for its backward pass, since a capture has room for one.

    Args:
        model: without buffers, which passes that only warm up would change; see `can_be_captured`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._came = Counter[_Key]()
        self._captures: dict[_Key, nn.Module] = {}
        self._tried = 0
        self._count: int | None = None
        self._waits = False

    def __call__(self, x: Tensor) -> Any:
        """See `Passes`."""
        key = x.shape, x.dtype, x.requires_grad
        if self._waits:
            return self.model(x)
        if key not in self._captures:
            self._came[key] += 1
            if self._came[key] % OFTEN == 0 and self._tried < MOST:
                self._tried += 1
                if (found := _tried(self.model, x)) is not None:
                    self._captures[key] = found
            out = self.model(x)
            self._count = len(out) if isinstance(out, tuple) else None
            return out
        self._waits = True
        # Whoever keeps an output must not see it change with the next pass.
        out = [t.clone() for t in _outputs(self._captures[key](x))]
        return out[0] if self._count is None else (*out, *[None] * (self._count - len(out)))

    def done(self) -> None:
        """See `Passes`."""
        self._waits = False

    @property
    def captures(self) -> int:
        """How many shapes are replayed."""
        return len(self._captures)


def can_be_captured(model: nn.Module) -> bool:
    """Whether a model has something to train, and nothing that a pass changes."""
    return not any(True for _ in model.buffers()) and any(p.requires_grad for p in model.parameters())


class _Door(nn.Module):
    """What is captured has a `forward` of its own put in its place, so it is not the model itself.

    Its outputs are tensors: those that are None come last and are left out. Only the first is trained on: others, such
    as attention scores, come without a gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        first, *others = _outputs(self.model(x))
        return (first, *(t.detach() for t in others)) if others else first


def capture(model: nn.Module, x: Tensor) -> nn.Module:
    """The same as a model for inputs like `x`, as CUDA graphs."""
    return cast(nn.Module, torch.cuda.make_graphed_callables(_Door(model), (x,), allow_unused_input=True))


def _tried(model: nn.Module, x: Tensor) -> nn.Module | None:
    """A capture of a model for inputs like `x`; None if there can be none, or it does not give the same numbers."""
    try:
        captured = capture(model, x.detach().clone().requires_grad_(x.requires_grad))
        same = all(_equal(*pair) for pair in zip(_numbers(model, x), _numbers(captured, x), strict=True))
    except Exception as error:  # whatever it is that cannot be captured, the model itself is called
        reason = (str(error).splitlines() or [""])[0]
        logging.getLogger(__name__).warning("no CUDA graph of a model: %s: %s", type(error).__name__, reason)
        return None
    if not same:
        logging.getLogger(__name__).warning("no CUDA graph of a model: replayed, it gives other numbers")
        return None
    return captured


def _numbers(passes: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Outputs of a pass, and the gradients for its input and parameters if its output were the gradient of it."""
    x = x.detach().clone().requires_grad_(x.requires_grad)
    outputs = _outputs(passes(x))
    leaves = [leaf for leaf in (x, *passes.parameters()) if leaf.requires_grad]
    gradients: Iterable[Tensor | None] = torch.autograd.grad(
        outputs[0], leaves, outputs[0].detach().clone(), allow_unused=True
    )
    return [t if t is None else t.detach().clone() for t in (*outputs, *gradients)]


def _outputs(out: Any) -> list[Tensor]:
    """What a pass gives, but None."""
    return [t for t in (out if isinstance(out, tuple) else (out,)) if t is not None]


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether both are the same to the bit; no gradient is one of zeros."""
    if a is None or b is None:
        return all(t is None or not t.any() for t in (a, b))
    return torch.equal(a, b)
