"""From NumPy to a device without making the host wait for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compressors import onto


def put(array: np.ndarray, device: torch.device) -> Tensor:
    """`array` as a tensor on `device`; on the CPU they share memory, to a GPU the copy runs in the background."""
    return onto(torch.from_numpy(array), device)
