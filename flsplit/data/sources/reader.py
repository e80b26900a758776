"""What every kind of source offers to the builder of the table: labels at once, images as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flsplit.data.errors import DataError

_MOST = 2**31 - 1  # as a label


@dataclass(frozen=True)
class Split:
    """One split of a source, before it becomes a table.

    Attributes:
        labels: (n,) int64.
        read: Maps ascending row numbers to a stream of their images, in this order: encoded bytes, or a
            uint8 array (H, W, C) where the source has no encoded form.
        where: How an error message calls the image in a row.
        columns: What else was asked for: each (n,), int64 or text.
        mode: Pillow's, that every image is converted to first, such as `L`; None: they are taken as they are.
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], Iterator[bytes | np.ndarray]]
    where: Callable[[int], str]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    mode: str | None = None


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
    if labels.max() > _MOST:  # before it is turned into a signed number
        raise DataError(f"{where} has the label {labels.max()}; labels must be 0 or more, without gaps")
    return labels.astype(np.int64)


def without(what: str, row: int, column: str, where: str) -> DataError:
    """The refusal of a row that lacks its image or its label."""
    return DataError(f"{where}: row {row} is without {what} in the column {column!r}; every row needs one")


def is_empty(image: Any) -> bool:
    """Whether a cell holds no image: nothing at all, or a struct of nothing."""
    return image is None or (isinstance(image, dict) and not any(image.values()))


def checked_column(name: str, values: Sequence[Any], where: str) -> np.ndarray:
    """Returns a further column as (n,) int64 or text; text too where a whole number fits in no int64.

    Raises:
        DataError: A value is missing, or is neither a whole number nor text.
    """
    if any(value is None or value == "" for value in values):
        raise DataError(f"partition: {where} has rows without a value in the column {name!r}; every sample needs one")
    kinds = {type(value) for value in values}
    if kinds <= {int, bool}:
        try:
            return np.array(values, np.int64)
        except OverflowError:
            return np.array([str(value) for value in values])
    if kinds == {str}:
        return np.array(values)
    named = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(f"partition: {where} has {named} in the column {name!r}; it must hold whole numbers or text")


def no_column(name: str, there: Iterable[str], where: str) -> DataError:
    """The refusal of a further column that a source does not have, with those that it has."""
    others = ", ".join(there)
    instead = f"it has {others}" if others else "beside image and label it has none"
    return DataError(f"partition: {where} has no column {name!r}; {instead}")


def several(what: str, where: str) -> DataError:
    """The refusal of columns of one name."""
    return DataError(f"{where} has several {what}; give each a name of its own")


def names_of_all(names: Mapping[str, list[str] | None], where: str) -> list[str] | None:
    """Names of the classes, of the first part of a data set that has any; a part without is taken as the others.

    Args:
        names: of the classes, for each part.
        where: how the message calls the data set.

    Returns:
        The names; None where no part has any.

    Raises:
        DataError: A label has two names.
    """
    known: dict[int, tuple[str, str]] = {}
    for part, own in names.items():
        for label, name in enumerate(own or ()):
            other, first = known.setdefault(label, (name, part))
            if name != other:
                raise DataError(
                    f"{where}: the label {label} is {other!r} in {first}, but {name!r} in {part}; all must have the "
                    "same class names in the same order"
                )
    return next((own for own in names.values() if own is not None), None)


def class_names(names: list[str] | None, train: np.ndarray, test: np.ndarray, where: str) -> tuple[str, ...]:
    """Names of the classes: `names` where known, otherwise the numbers that occur in the training labels.

    Raises:
        DataError: A label has no class, or no training sample.
    """
    there, highest = np.unique(train), int(max(train.max(), test.max()))
    if names is None and len(there) <= train.max():
        gap = int(np.flatnonzero(there != np.arange(len(there)))[0])
        raise DataError(
            f"{where} has the label {train.max()}, but no training sample of {gap}; labels must have no gaps"
        )
    names = [str(label) for label in there] if names is None else names
    if highest >= len(names):
        raise DataError(f"{where} has the label {highest}, but only {len(names)} classes")
    if len(lacking := np.setdiff1d(test, there)):
        raise DataError(f"{where} has test samples of {names[lacking[0]]!r}, but no training samples of it")
    return tuple(names)
