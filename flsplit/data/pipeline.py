"""From a table to batches on the device: augmented, resized, normalised, and ready before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from flsplit.data import augment as transform
from flsplit.data.augment_batch import paper_batch
from flsplit.data.device import put
from flsplit.data.errors import DataError
from flsplit.data.order import step_indices, step_sizes
from flsplit.data.ordered import ordered_map
from flsplit.data.prepare import Piece, background, prepare
from flsplit.data.resize import resize
from flsplit.data.table import Table
from flsplit.streams import torch_stream

_PIECE = 16  # encoded images that a worker prepares at a time
_AHEAD = 16  # such pieces that are prepared while a batch is in use, at least
_TOGETHER = 3 << 18  # levels that are augmented at once, 256 images of 32 x 32: they stay in a CPU's cache
_TOGETHER_ON_GPU = 3 << 20

# Pixels of uniform tables on their devices: one copy per process, for all clients.
_RESIDENT: WeakKeyDictionary[Table, dict[torch.device, Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Step:
    """One batch to prepare: its rows of the table and, with augmentation, its random numbers."""

    rows: np.ndarray
    draws: transform.Draws | None = None


class Pipeline:
    """Makes the batches of any table and client; holds no state between calls.

    The permutation of an epoch comes from the stream ("order", client, round, epoch), the augmentation of a
    step from ("augment", client, round, step), with steps counted through the round; `augment.draw` says in
    which order. Workers and prefetching cannot change a batch, nor can the device change its 8-bit values.
    """

    def __init__(
        self,
        *,
        image_size: int,
        augment: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
        seed: int,
        workers: int = 1,
    ) -> None:
        """Sets up for one kind of batch.

        Args:
            image_size: Side of the images in a batch, in pixels.
            augment: `none` or `paper`.
            mean: Mean of each channel, for values in 0..1.
            std: Standard deviation of each channel.
            device: Where the batches go.
            seed: The run's seed.
            workers: Who decodes and augments images of many sizes in the background: one thread, or so many processes.

        Raises:
            DataError: `augment` is unknown.
        """
        if augment not in transform.NAMES:
            raise DataError(f"augment: {augment!r} is unknown; choose one of {', '.join(transform.NAMES)}")
        self._size = image_size
        self._augment = augment == "paper"
        self.mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self._device = device
        self._seed = seed
        self._workers = workers

    def train_batches(
        self,
        table: Table,
        indices: np.ndarray,
        *,
        client: int,
        round: int,
        batch_size: int,
        local_epochs: int | None = 1,
        local_steps: int | None = None,
        group_size: int = 1,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one round at one client; see `order.step_sizes` for how many and how large.

        Args:
            table: The training samples of all clients.
            indices: The client's rows.
            client: Its number.
            round: The round's number.
            batch_size: Samples per batch.
            local_epochs: Passes over the rows, unless `local_steps` is given.
            local_steps: Exactly this many batches.
            group_size: Samples that are compressed together.

        Yields:
            Images (B, 3, S, S) float32, normalised, and labels (B,) int64, on the device.
        """
        sizes = step_sizes(len(indices), batch_size, local_epochs, local_steps, group_size)
        order = step_indices(indices, sizes, seed=self._seed, client=client, round=round)
        return self._batches(table, (self._step(rows, client, round, step) for step, rows in enumerate(order)))

    def eval_batches(
        self, table: Table, indices: np.ndarray | None, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples, or those at `indices`, in order and without augmentation; the last batch may be short.

        Yields:
            As `train_batches`.
        """
        rows = np.arange(len(table)) if indices is None else indices
        starts = range(0, len(rows), batch_size)
        return self._batches(table, (_Step(rows[start : start + batch_size]) for start in starts))

    def _step(self, rows: np.ndarray, client: int, round: int, step: int) -> _Step:
        if not self._augment:
            return _Step(rows)
        return _Step(rows, transform.draw(len(rows), torch_stream(self._seed, "augment", client, round, step)))

    def _batches(self, table: Table, steps: Iterator[_Step]) -> Iterator[tuple[Tensor, Tensor]]:
        made = self._of_one_size(table, steps) if table.uniform else self._of_many_sizes(table, steps)
        for step, images in made:
            yield self._finish(images, step), put(table.labels[step.rows], self._device)

    def _of_one_size(self, table: Table, steps: Iterator[_Step]) -> Iterator[tuple[_Step, Tensor]]:
        """(B, C, h, w) uint8 of each step, from the pixels on the device; augments several steps at once."""
        pixels = resident(table, self._device)
        levels = _TOGETHER if self._device.type == "cpu" else _TOGETHER_ON_GPU
        for chunk in _chunks(steps, levels // (3 * pixels.shape[1] * pixels.shape[2])):
            rows = np.concatenate([step.rows for step in chunk])
            images = pixels.index_select(0, put(rows, self._device)).permute(0, 3, 1, 2)
            draws = [step.draws for step in chunk if step.draws is not None]
            if draws:
                images = paper_batch(images.expand(-1, 3, -1, -1), transform.Draws.joined(draws))
            yield from zip(chunk, images.split([len(step.rows) for step in chunk]))

    def _of_many_sizes(self, table: Table, steps: Iterator[_Step]) -> Iterator[tuple[_Step, Tensor]]:
        """(B, 3, S, S) uint8 of each step; workers decode, augment and resize ahead of the consumer."""
        taken: deque[_Step] = deque()

        def pieces() -> Iterator[Piece]:
            for step in steps:
                taken.append(step)
                for start in range(0, len(step.rows), _PIECE):
                    part = slice(start, start + _PIECE)
                    encoded = [table.encoded(row) for row in step.rows[part].tolist()]
                    yield Piece(encoded, step.draws and step.draws[part], self._size)

        with background(self._workers) as pool:
            made = ordered_map(prepare, pieces(), pool=pool, ahead=max(_AHEAD, 2 * self._workers))
            for images in made:
                step = taken.popleft()
                rest = islice(made, -(-len(step.rows) // _PIECE) - 1)
                yield step, put(np.concatenate([images, *rest]), self._device).permute(0, 3, 1, 2)

    def _finish(self, images: Tensor, step: _Step) -> Tensor:
        """(B, C, h, w) uint8 to (B, 3, S, S) float32: resized, flipped, normalised."""
        x = resize(images, self._size).to(torch.float32, memory_format=torch.contiguous_format)
        if step.draws is not None:
            x = torch.where(put(step.draws.flip, self._device).view(-1, 1, 1, 1), x.flip(-1), x)
        return x.expand(-1, 3, -1, -1).div(255).sub_(self.mean).div_(self.std)


def _chunks(steps: Iterator[_Step], images: int) -> Iterator[list[_Step]]:
    """Consecutive steps that have at least `images` images together."""
    chunk: list[_Step] = []
    for step in steps:
        chunk.append(step)
        if sum(len(step.rows) for step in chunk) >= images:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def resident(table: Table, device: torch.device) -> Tensor:
    """The pixels of a uniform table on `device`, (n, H, W, C) uint8; on the CPU they stay memory-mapped."""
    on_devices = _RESIDENT.setdefault(table, {})
    if device not in on_devices:
        on_devices[device] = torch.from_numpy(table.pixels).to(device)
    return on_devices[device]
