"""What of a message has not arrived, as its receiver knows, and what stands in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FILLS = ("zero", "last")
Masks = tuple[Tensor | None, ...]


@dataclass(frozen=True, eq=False)
class Lost:
    """Which values of a payload have not arrived. What stands in their place is a constant: its gradient is zero.

    Attributes:
        floats: for each field of floats, where values are missing: bool, in its shape; None where none is.
        integers: the same for each field of integers.
        fill: what stands in their place, as `filled` has it.
    """

    floats: Masks
    integers: Masks = ()
    fill: str = "zero"

    def filled(self, floats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """These floats with something in the place of what is missing."""
        pairs = zip(floats, self.floats, strict=True)
        return tuple(t if gone is None else filled(t, gone, self.fill) for t, gone in pairs)

    def fits(self, floats: Sequence[Tensor]) -> bool:
        """Whether there is a mask in its shape, or None, for each of these floats."""
        return len(self.floats) == len(floats) and all(
            gone is None or (gone.dtype == torch.bool and gone.shape == t.shape) for gone, t in zip(self.floats, floats)
        )

    def first(self, floats: int, integers: int) -> Lost:
        """The same of so many fields of floats and of integers, the first ones."""
        return Lost(self.floats[:floats], self.integers[:integers], self.fill)

    def and_also(self, earlier: Lost | None) -> Lost:
        """What is missing here or was missing earlier, filled in as here."""
        if earlier is None:
            return self
        return Lost(_either(self.floats, earlier.floats), _either(self.integers, earlier.integers), self.fill)


def filled(values: Tensor, gone: Tensor, fill: str) -> Tensor:
    """Values with something in the place of those that are gone.

    Args:
        values: of a field.
        gone: bool, in their shape.
        fill: `zero`; or `last`: what came before them at the same place of the last dimension (the token before), 0
            where nothing did.
    """
    return values.masked_fill(gone, 0) if fill == "zero" else _last_known(values, gone)


def _either(here: Masks, earlier: Masks) -> Masks:
    pairs = zip(here, earlier, strict=True)
    return tuple(b if a is None else a if b is None else a | b for a, b in pairs)


def _last_known(values: Tensor, gone: Tensor) -> Tensor:
    rows, missing = values.reshape(-1, values.shape[-1]), gone.reshape(-1, values.shape[-1])
    index = torch.arange(len(rows), device=rows.device).unsqueeze(1).expand_as(rows)
    last = index.masked_fill(missing, -1).cummax(0).values
    return rows.gather(0, last.clamp(min=0)).masked_fill(last < 0, 0).view(values.shape)
