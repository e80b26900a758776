"""Many tensors in one piece of memory, so that they are read and written in one go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGN = 16  # floats: 64 bytes, where torch lays tensors of their own on a CPU; kernels may round by it


class Packed:
    """Views of one fp32 vector, in the shapes of given tensors, with their values.

    Every view starts at a multiple of 64 bytes; outside, they are one vector without gaps.

    Args:
        tensors: floating-point tensors.
        device: where they are.

    Attributes:
        views: one for each tensor.
        memory: the vector, in which the gaps are 0.
        size: how many floats the views are, gaps apart.
    """

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        sizes = [t.numel() for t in tensors]
        rooms = [-(-size // _ALIGN) * _ALIGN for size in sizes]
        self.memory = torch.zeros(sum(rooms), dtype=torch.float32, device=device)
        self.size = sum(sizes)
        self.views = [
            room[:size].view(t.shape).copy_(t.detach())
            for room, size, t in zip(self.memory.split(rooms) if rooms else (), sizes, tensors)
        ]
        self._runs = _without_gaps(self.memory, sizes, rooms)
        self._lengths = [len(run) for run in self._runs]

    def read(self) -> Tensor:
        """A copy of all values, (size,), on the CPU."""
        values = torch.empty(self.size)
        self.read_into(values)
        return values

    def read_into(self, values: Tensor) -> None:
        """Copy all values.

        Args:
            values: (size,), on any device.
        """
        if self._runs:
            values.copy_(torch.cat(self._runs) if len(self._runs) > 1 else self._runs[0])

    def write(self, values: Tensor) -> None:
        """Take over all values.

        Args:
            values: (size,), on any device.
        """
        for run, part in zip(self._runs, values.split(self._lengths) if self._runs else ()):
            run.copy_(part, non_blocking=True)

    def clear(self) -> None:
        """Set all values to 0."""
        self.memory.zero_()


def _without_gaps(memory: Tensor, sizes: Sequence[int], rooms: Sequence[int]) -> list[Tensor]:
    """The longest stretches of `memory` that hold values from end to end."""
    runs, begin, at = [], 0, 0
    for size, room in zip(sizes, rooms):
        at += room
        if size < room:
            runs.append(memory[begin : at - room + size])
            begin = at
    return runs if begin == at else [*runs, memory[begin:at]]
