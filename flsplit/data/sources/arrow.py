"""Tables of the library `datasets`: from the Hub, or as `DatasetDict.save_to_disk` leaves them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from flsplit.data.config import DatasetConfig
from flsplit.data.errors import DataError
from flsplit.data.sources.reader import (
    Source,
    Split,
    checked_column,
    checked_labels,
    class_names,
    is_empty,
    names_of_all,
    no_column,
    without,
)
from flsplit.online import DATASETS, no_bars

_ROWS_AT_ONCE = 64  # in memory
_SPLITS = "dataset_dict.json"  # of a saved DatasetDict
_TRAIN, _TEST = "the split to train on", "the split to test on"  # in messages


def is_saved(path: Path) -> bool:
    """Whether `save_to_disk` has written this folder."""
    alone = [path / "dataset_info.json", path / "state.json"]  # of one `Dataset`
    return (path / _SPLITS).is_file() or all(file.is_file() for file in alone)


def splits(path: Path, config: DatasetConfig) -> tuple[str, str]:
    """Names of the splits to train and to test on, of a folder that `is_saved`.

    Raises:
        DataError: One is missing.
    """
    if not (path / _SPLITS).is_file():
        raise DataError(
            f"dataset.path: {path} is one saved Dataset; save a DatasetDict with {config.train_split} and "
            f"{config.test_split}"
        )
    try:
        there = list(json.loads((path / _SPLITS).read_text(encoding="utf-8"))["splits"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"dataset.path: {path / _SPLITS} is damaged") from error
    return names_of_splits(there, config, f"dataset.path: {path}")


def names_of_splits(there: Sequence[str], config: DatasetConfig, where: str) -> tuple[str, str]:
    """Which of the splits `there` are trained and tested on.

    Raises:
        DataError: One is missing.
    """
    test = next((name for name in config.test_names if name in there), None)
    for wanted, found in ((config.train_split, config.train_split in there), (config.test_split, test)):
        if not found:
            raise DataError(f"{where} has no split {wanted!r}, only {', '.join(there)}")
    assert test is not None
    return config.train_split, test


def save(dataset: Any, path: Path) -> None:
    """Writes a `DatasetDict`, without the bars that `datasets` shows."""
    with no_bars(DATASETS):
        dataset.save_to_disk(str(path))


def files(path: Path) -> list[Path]:
    """All files of a saved data set and those that its rows name without holding their bytes, in a fixed order."""
    own = sorted(file for file in path.rglob("*") if file.is_file())
    named = {Path(name).absolute() for file in own if file.suffix == ".arrow" for name in _named(file)}
    return own + sorted(file for file in named if file.is_file())


def _named(file: Path) -> set[str]:
    """What the images in a file of Arrow batches name; none of a file that cannot be read, which `source` refuses."""
    import pyarrow

    found: set[str] = set()
    with suppress(pyarrow.ArrowException, KeyError), pyarrow.memory_map(str(file)) as mapped:
        for rows in pyarrow.ipc.open_stream(mapped):
            images = [field.name for field in rows.schema if _is_struct_of(field.type, {"bytes", "path"})]
            found.update(path for image in images for path in _paths(rows.column(image)))
    return found


def _is_struct_of(kind: Any, names: set[str]) -> bool:
    import pyarrow

    return pyarrow.types.is_struct(kind) and {field.name for field in kind} == names


def _paths(cells: Any) -> list[str]:
    """The paths in a column of images, as `datasets` stores them, of those without bytes."""
    from pyarrow import compute

    named = compute.struct_field(cells, "path").filter(compute.struct_field(cells, "bytes").is_null())
    return list(named.drop_null().to_pylist())


def digest(part: Any) -> str:
    """A digest of the features and rows of a `datasets.Dataset`: equal for equal rows, whatever lies around them.

    `_fingerprint` would not do: it says which functions were mapped, not what they returned, and one file in the cache
    of `datasets` may hold other rows than when it was opened.
    """
    import pyarrow

    state = xxhash.xxh3_128(part.features.arrow_schema.serialize())
    for rows in part.with_format("arrow").iter(_ROWS_AT_ONCE):
        alone = rows.combine_chunks().take(np.arange(len(rows)))  # without the bits beside a slice
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, alone.schema.remove_metadata()) as stream:
            stream.write_table(alone.replace_schema_metadata(None))
        state.update(sink.getvalue())
    return str(state.hexdigest())


def outside(part: Any, where: str) -> set[Path]:
    """Local files of images that the rows of a `datasets.Dataset` name without holding their bytes.

    Raises:
        DataError: One is not there, or cannot be read; `where` is how the message calls the rows.
    """
    import datasets

    images = [name for name, feature in part.features.items() if isinstance(feature, datasets.Image)]
    paths: set[str] = set()
    for rows in part.select_columns(images).with_format("arrow").iter(_ROWS_AT_ONCE):
        paths.update(path for image in images for path in _paths(rows.column(image)))
    found = {Path(path).absolute() for path in paths if "://" not in path}
    for file in sorted(found):
        if not (file.is_file() and os.access(file, os.R_OK)):
            reason = "cannot be read" if file.exists() else "is not there"
            raise DataError(f"{where} names an image in {file}, which {reason}")
    return found


def source(path: Path, config: DatasetConfig, columns: Sequence[str]) -> Source:
    """Opens a saved data set; `columns` are further ones of the training samples.

    Raises:
        DataError: It cannot be read, or lacks a split or a column.
    """
    import datasets

    names = splits(path, config)
    try:
        loaded = [datasets.Dataset.load_from_disk(str(path / name)) for name in names]
    except Exception as error:  # of pyarrow, json, or the file system
        raise DataError(f"dataset.path: {path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return of_datasets(loaded[0], loaded[1], config, columns, f"dataset.path: {path}")


def of_datasets(train: Any, test: Any, config: DatasetConfig, columns: Sequence[str], where: str) -> Source:
    """What two `datasets.Dataset` hold.

    Args:
        train: to train on.
        test: to test on.
        config: names the columns; where they are called as by default and not
            there, the only one of images and the only one of class labels are taken.
        columns: further ones of the training samples.
        where: how messages call the data set.

    Raises:
        DataError: A column is missing, holds no labels, or lacks one in some row; or labels have other names in one
            split than in the other.
    """
    import datasets

    train, test = train.with_format(None), test.with_format(None)
    image = _column(train, config, "image_column", datasets.Image, where)
    label = _column(train, config, "label_column", datasets.ClassLabel, where)
    for key, column in (("image_column", image), ("label_column", label)):
        if column not in test.column_names:
            raise DataError(f"dataset.{key}: {where}: {_TEST} has no column {column!r}")
    others = [name for name in train.column_names if name != image]
    for column in columns:
        if column not in others:
            raise no_column(column, others, where)
    own = {part: getattr(rows.features[label], "names", None) for part, rows in ((_TRAIN, train), (_TEST, test))}
    names = names_of_all(own, where)
    name = f"dataset={config.name}"
    parts = (
        _split(train, image, label, columns, f"{name}: {_TRAIN}"),
        _split(test, image, label, (), f"{name}: {_TEST}"),
    )
    return Source(*parts, class_names(names, parts[0].labels, parts[1].labels, name))


def _column(part: Any, config: DatasetConfig, key: str, kind: type, where: str) -> str:
    if (named := getattr(config, key)) in part.column_names:
        return str(named)
    alike = [name for name, feature in part.features.items() if isinstance(feature, kind)]
    if len(alike) != 1 or named != getattr(DatasetConfig, key):
        raise DataError(f"dataset.{key}: {where} has no column {named!r}, only {', '.join(part.column_names)}")
    return str(alike[0])


def _split(part: Any, image: str, label: str, columns: Sequence[str], name: str) -> Split:
    import datasets

    if not isinstance(part.features[image], datasets.Image):
        raise DataError(f"dataset.image_column: {name}: the column {image!r} holds no images")
    mode = part.features[image].mode
    part = part.cast_column(image, datasets.Image(decode=False))
    labels = part.select_columns([label]).with_format("arrow")[:][label]
    if labels.null_count:
        raise without("a label", labels.is_null().index(True).as_py(), label, name)

    def read(rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        for row, cells in zip(rows, part.select_columns([image]).select(rows)):
            found = cells[image]
            if is_empty(found):
                raise without("an image", row, image, name)
            yield found["bytes"] if found["bytes"] is not None else _read(found["path"], f"{name}: image {row}")

    further = {column: checked_column(column, part.select_columns([column])[:][column], name) for column in columns}
    return Split(checked_labels(labels.to_numpy(), name), read, lambda row: f"{name}: image {row}", further, mode)


def _read(path: str, where: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{where} cannot be read from {path} ({error.strerror})") from error
