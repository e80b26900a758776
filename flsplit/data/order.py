"""Which samples make up which training step of a client."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import torch

from flsplit.streams import torch_stream


def step_sizes(
    n_samples: int,
    batch_size: int,
    local_epochs: int | None = 1,
    local_steps: int | None = None,
    group_size: int = 1,
) -> list[int]:
    """Sizes of the batches of one round at one client.

    An epoch has as many full batches as there are; what is left over is dropped. A client with fewer samples
    than a batch takes them in one short batch, cut to a multiple of `group_size` if it is larger than that.

    Args:
        n_samples: The client's training samples.
        batch_size: Samples per full batch.
        local_epochs: Passes over the samples; plays no part if `local_steps` is given.
        local_steps: Exactly this many steps, over as many epochs as that takes.
        group_size: Samples that are compressed together.
    """
    if n_samples >= batch_size:
        epoch = [batch_size] * (n_samples // batch_size)
    elif n_samples > group_size:
        epoch = [n_samples - n_samples % group_size]
    else:
        epoch = [n_samples] if n_samples else []
    if local_steps is None:
        if local_epochs is None:
            raise ValueError("one of local_epochs and local_steps must be given")
        return epoch * local_epochs
    if not epoch:
        return []
    return (epoch * (local_steps // len(epoch) + 1))[:local_steps]


def step_indices(
    indices: np.ndarray,
    sizes: list[int],
    *,
    seed: int,
    client: int,
    round: int,
) -> Iterator[np.ndarray]:
    """The samples of each step: every epoch a new permutation, keyed by (client, round, epoch).

    Args:
        indices: (n,) the client's samples.
        sizes: What `step_sizes` gives for n samples.
        seed: The run's seed.
        client: The client's number.
        round: The round's number.
    """
    size = sizes[0] if sizes else 1  # within a round all batches have one size

    def batches() -> Iterator[np.ndarray]:
        for epoch in count():
            stream = torch_stream(seed, "order", client, round, epoch)
            shuffled = indices[torch.randperm(len(indices), generator=stream).numpy()]
            for start in range(0, len(indices) - size + 1, size):
                yield shuffled[start : start + size]

    return islice(batches(), len(sizes))
