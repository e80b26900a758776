"""From a table to batches on the device: augmented, resized, normalised, and ready before they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as nnf
from PIL import Image
from torch import Tensor

from flsplit.data import augment as transform
from flsplit.data.errors import DataError
from flsplit.data.order import step_indices, step_sizes
from flsplit.data.table import Table
from flsplit.data.threads import ordered_map
from flsplit.streams import torch_stream

_AHEAD = 2  # batches that are prepared while one is in use

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
    which order. Threads and prefetching cannot change a batch.
    """

    steps = staticmethod(step_sizes)

    def __init__(
        self,
        *,
        image_size: int,
        augment: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
        seed: int,
        threads: int = 1,
    ) -> None:
        """Sets up for one kind of batch.

        Args:
            image_size: Side of the images in a batch, in pixels.
            augment: `none` or `paper`.
            mean: Mean of each channel, for values in 0..1.
            std: Standard deviation of each channel.
            device: Where the batches go.
            seed: The run's seed.
            threads: Threads that decode and augment in the background.

        Raises:
            DataError: `augment` is unknown.
        """
        if augment not in transform.NAMES:
            raise DataError(f"augment: {augment!r} is unknown; choose one of {', '.join(transform.NAMES)}")
        self._size = image_size
        self._augment = augment == "paper"
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self._device = device
        self._seed = seed
        self._threads = threads

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
        return self._batches(
            table, (self._step(rows, client, round, step) for step, rows in enumerate(order))
        )

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
        return _Step(
            rows, transform.draw(len(rows), torch_stream(self._seed, "augment", client, round, step))
        )

    def _batches(self, table: Table, steps: Iterator[_Step]) -> Iterator[tuple[Tensor, Tensor]]:
        if table.uniform and not self._augment:
            for step in steps:
                pixels = resident(table, self._device)
                yield self._finish(pixels[self._put(step.rows)], step), self._put(table.labels[step.rows])
            return

        def prepare(step: _Step) -> tuple[_Step, np.ndarray]:
            return step, self._prepare(table, step)

        for step, images in ordered_map(prepare, steps, threads=self._threads, ahead=_AHEAD):
            yield self._finish(self._put(images), step), self._put(table.labels[step.rows])

    def _prepare(self, table: Table, step: _Step) -> np.ndarray:
        """Decodes and augments, in a background thread; without torch, which would start threads of its own.

        Returns:
            (B, h, w, 3) uint8; a table of many sizes is brought to S x S here.
        """
        images = []
        for index, row in enumerate(step.rows):
            image = table.image(row)
            if step.draws is not None:
                image = transform.paper(image, step.draws, index)
            if not table.uniform:
                image = image.resize((self._size, self._size), Image.Resampling.BILINEAR)
            images.append(np.asarray(image))
        return np.stack(images)

    def _finish(self, pixels: Tensor, step: _Step) -> Tensor:
        """(B, h, w, C) uint8 to (B, 3, S, S) float32: resized, flipped, normalised."""
        x = resize(pixels.permute(0, 3, 1, 2), self._size)
        x = x.to(torch.float32, memory_format=torch.contiguous_format)
        if step.draws is not None:
            x = torch.where(self._put(step.draws.flip).view(-1, 1, 1, 1), x.flip(-1), x)
        return x.expand(-1, 3, -1, -1).div(255).sub_(self._mean).div_(self._std)

    def _put(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


def resize(images: Tensor, size: int) -> Tensor:
    """Antialiased bilinear resizing to 8-bit values, as Pillow does it: across, then down, rounding each time.

    torch has this for uint8 on the CPU only; elsewhere it is composed of floating-point passes, which can
    differ by a level where a value lies halfway between two.

    Args:
        images: (B, C, h, w) uint8.
        size: Side of the result in pixels.

    Returns:
        (B, C, size, size), uint8 or float32 with the same values.
    """
    if images.shape[-2:] == (size, size):
        return images
    if images.device.type == "cpu":
        return nnf.interpolate(images, (size, size), mode="bilinear", antialias=True)
    x = images.to(torch.float32, memory_format=torch.contiguous_format)
    for shape in ((x.shape[-2], size), (size, size)):
        x = nnf.interpolate(x, shape, mode="bilinear", antialias=True)
        x = x.add_(0.501).floor_()  # a half goes up, also when the arithmetic leaves it a hair below
    return x


def resident(table: Table, device: torch.device) -> Tensor:
    """The pixels of a uniform table on `device`, (n, H, W, C) uint8; on the CPU they stay memory-mapped."""
    on_devices = _RESIDENT.setdefault(table, {})
    if device not in on_devices:
        on_devices[device] = torch.from_numpy(table.pixels).to(device)
    return on_devices[device]
