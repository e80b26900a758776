"""Memory that a model and its batches take at least, against what there is: refused before it is taken.

Every figure is a lower bound, so that nothing is refused that could run; what lies between it and the truth still runs
out of memory, on a GPU with a line of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from flsplit.errors import UserError

FLOAT = 4  # bytes
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def there(device: torch.device) -> int:
    """Bytes that a device has in all, used ones included: of a GPU, or of this machine or container."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in map(Path, _LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        most = min(most, int(text)) if text.isdecimal() else most
    return most


def check(need: int, device: torch.device, what: str, remedy: str) -> None:
    """Refuse what cannot be.

    Args:
        need: bytes that it takes at least.
        device: where.
        what: the keys and their values, for the message.
        remedy: what would be right, for the message.

    Raises:
        UserError: if the device has less in all.
    """
    if need > (most := there(device)):
        where = "the GPU" if device.type == "cuda" else "this machine"
        raise UserError(
            f"{what} needs at least {need / 1e9:,.0f} GB of memory, and {where} has {most / 1e9:,.0f}; {remedy}"
        )


def of_a_step(batch: int, *, image_size: int, tokens: int, width: int) -> int:
    """Bytes of a batch's images (3 channels) and of its smashed activations with their gradient, (B, N, D) twice."""
    return FLOAT * batch * (3 * image_size**2 + 2 * tokens * width)


def of_training(parameters: int) -> int:
    """Bytes of weights, gradients and both moments."""
    return 4 * FLOAT * parameters
