"""Clients whose update is far larger than it should be (`strategy.max_update_norm`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flsplit.errors import UserError, shown
from flsplit.typed import read

CHOICES = ("clip", "fail")


@dataclass(frozen=True, kw_only=True)
class NormBound:
    """A bound on the Euclidean norm of what a client changes in a round.

    The update is that of all trained numbers that the client brings back, its replica of the server-side model among
    them; buffers, which are statistics, are left alone.

    Args:
        max_update_norm: the bound; None for none.
        on_outlier: `clip`: a larger update is scaled down to the bound (as in McMahan et al. 2018, arXiv 1710.06963);
            `fail`: its client has failed.

    Raises:
        UserError: for a value that cannot be.
    """

    max_update_norm: float | None = None
    on_outlier: str = "clip"

    def __post_init__(self) -> None:
        most = self.max_update_norm
        if most is not None and not 0 < most < float("inf"):
            raise UserError(f"strategy.max_update_norm must be a number above 0, or null, got {shown(most)}")
        if self.on_outlier not in CHOICES:
            raise UserError(f"strategy.on_outlier must be {' or '.join(CHOICES)}, got {self.on_outlier!r}")

    @staticmethod
    def of(most: object, on_outlier: object) -> NormBound:
        """The bound that a user asks for.

        Raises:
            UserError: for a value of another kind, or one that cannot be.
        """
        return read(NormBound, {"max_update_norm": most, "on_outlier": on_outlier}, at="strategy.")

    @torch.no_grad()
    def hold(
        self, brought: Sequence[Tensor], start: Sequence[Tensor], trained: Sequence[int]
    ) -> tuple[float, list[Tensor]]:
        """Hold a client to the bound.

        Args:
            brought: vectors (P,) that the client has brought.
            start: the vectors that it started from.
            trained: how many numbers of each are trained; they come first.

        Returns:
            the norm of the update, and the vectors within the bound; those that need no change as they are.
        """
        updates = [new[:count] - old[:count] for new, old, count in zip(brought, start, trained, strict=True)]
        norm = float(sum(float(torch.linalg.vector_norm(u, dtype=torch.float64)) ** 2 for u in updates) ** 0.5)
        if self.max_update_norm is None or norm <= self.max_update_norm:
            return norm, list(brought)
        held = [vector.clone() for vector in brought]
        for vector, old, update, count in zip(held, start, updates, trained):
            vector[:count] = old[:count] + update * (self.max_update_norm / norm)
        return norm, held
