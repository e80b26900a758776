"""What of a message has not arrived, as its receiver knows, and what stands in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FILLS = ("zero", "last")


@dataclass(frozen=True, eq=False)
class Lost:
    """Which values of a payload have not arrived. What stands in their place is a constant: its gradient is zero.

    Attributes:
        floats: for each field of floats, where values are missing: bool, in its shape; None where none is.
        integers: the same for each field of integers.
        fill: what stands in their place, as `filled` has it.
    """

    floats: tuple[Tensor | None, ...]
    integers: tuple[Tensor | None, ...] = ()
    fill: str = "zero"

    def fits(self, floats: Sequence[Tensor]) -> bool:
        """Whether there is a mask in its shape, or None, for each of these floats."""
        return len(self.floats) == len(floats) and all(
            gone is None or (gone.dtype == torch.bool and gone.shape == t.shape) for gone, t in zip(self.floats, floats)
        )


def filled(values: Tensor, gone: Tensor, fill: str) -> Tensor:
    """Values with something in the place of those that are gone.

    Args:
        values: of a field.
        gone: bool, in their shape.
        fill: `zero`; or `last`: what came before them at the same place of the last dimension (the token before), 0
            where nothing did.
    """
    return values.masked_fill(gone, 0) if fill == "zero" else _last_known(values, gone)


def _last_known(values: Tensor, gone: Tensor) -> Tensor:
    rows, missing = values.reshape(-1, values.shape[-1]), gone.reshape(-1, values.shape[-1])
    index = torch.arange(len(rows), device=rows.device).unsqueeze(1).expand_as(rows)
    last = index.masked_fill(missing, -1).cummax(0).values
    return rows.gather(0, last.clamp(min=0)).masked_fill(last < 0, 0).view(values.shape)
