"""What every kind of source offers to the builder of the table: labels at once, images as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from flsplit.data.errors import DataError


@dataclass(frozen=True)
class Split:
    """One split of a source, before it becomes a table.

    Attributes:
        labels: (n,) int64.
        read: Maps ascending row numbers to a stream of their images, in this order: encoded bytes, or a
            uint8 array (H, W, C) where the source has no encoded form.
        where: How an error message calls the image in a row.
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], Iterator[bytes | np.ndarray]]
    where: Callable[[int], str]


@dataclass(frozen=True)
class Source:
    """Both splits of a data set and the names of its classes."""

    train: Split
    test: Split
    classes: tuple[str, ...]


def checked_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Returns `labels` as (n,) int64.

    Raises:
        DataError: There are none, or they are not integers from 0.
    """
    if len(labels) == 0:
        raise DataError(f"{where} has no samples")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where} has labels of type {labels.dtype}; they must be integers without gaps")
    if labels.min() < 0:
        raise DataError(f"{where} has the label {labels.min()}; labels must be 0 or more")
    return labels.astype(np.int64)


def class_names(names: list[str] | None, train: np.ndarray, test: np.ndarray, where: str) -> tuple[str, ...]:
    """Names of the classes: `names` where known, otherwise the numbers that occur in the training labels.

    Raises:
        DataError: A label has no class.
    """
    if names is None:
        names = [str(label) for label in range(int(train.max()) + 1)]
    highest = int(max(train.max(), test.max()))
    if highest >= len(names):
        raise DataError(f"{where} has the label {highest}, but only {len(names)} classes")
    return tuple(names)
