"""Parquet files in the Hub's columns: an image struct with `bytes`, and an integer label."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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
    several,
    without,
)

_ROWS_AT_ONCE = 256
_SHOWN = 10  # names in a message
# What follows the split: perhaps a name, a number, of how many, and a digest, as the Hub once had it.
_PART = r"(?P<name>(-.*?)??)(-(?P<number>\d+)(-of-(?P<count>\d+)(-[0-9a-f]+)?)?)?"


def folders(path: Path, config: DatasetConfig) -> list[Path]:
    """Where training files lie: `path` alone if it has some, otherwise those folders directly below that have."""
    if _named(path, config.train_split):
        return [path]
    below = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
    return [folder for folder in below if _named(folder, config.train_split)]


def find(path: Path, config: DatasetConfig) -> dict[str, list[Path]] | None:
    """The files of the two splits, in `path` itself, or in the one folder directly below that has some.

    Returns:
        Lists of files under `train` and `test`, or None if there are no Parquet files for training.

    Raises:
        DataError: There are training files but no test files, or not one complete set of either.
    """
    there = folders(path, config)
    if not there:
        return None
    if len(there) > 1:
        names = _listed(folder.name for folder in there)
        raise DataError(f"dataset.path: {path} has training files in {names}; name one of these folders")
    [folder] = there
    train = _whole(folder, config.train_split)
    test = next((name for name in config.test_names if _named(folder, name)), None)
    if test is None:
        splits = sorted({file.stem.partition("-")[0] for file in folder.glob("*.parquet")})
        raise DataError(
            f"dataset.path: {folder} has {train[0].name} but no {config.test_split}-*.parquet; its splits are "
            f"{_listed(splits)}; name one with dataset.test_split"
        )
    return {"train": train, "test": _whole(folder, test)}


def split_for_tests(files: dict[str, list[Path]], config: DatasetConfig) -> str:
    """Name of the split that the test files of `find` are of."""
    return next(name for name in config.test_names if _is_of(files["test"][0], name))


def check(files: dict[str, list[Path]], config: DatasetConfig, columns: Sequence[str]) -> None:
    """Looks at the columns of every file, not at the rows; `columns` are further ones of the training samples.

    Raises:
        DataError: A file is not Parquet, lacks a column, has one twice, or calls a label differently from another.
    """
    for file in files["train"] + files["test"]:
        schema = _open(file).schema_arrow
        names = schema.names
        for key in ("image_column", "label_column"):
            column = getattr(config, key)
            if column not in names:
                raise DataError(
                    f"dataset.path: {file.name} has no column {column!r}, only {', '.join(names)}; "
                    f"name the right one with dataset.{key}"
                )
            if names.count(column) > 1:
                raise several(f"columns {column!r}", f"dataset.path: {file.name}")
        if _parts(schema.field(config.image_column).type).count("bytes") > 1:
            raise several(f"fields 'bytes' in {config.image_column!r}", f"dataset.path: {file.name}")
    _class_names(files, config)
    for file in files["train"]:
        names = [name for name in _open(file).schema_arrow.names if name != config.image_column]
        for column in columns:
            if column not in names:
                raise no_column(column, names, file.name)
            if names.count(column) > 1:
                raise several(f"columns {column!r}", f"partition: {file.name}")


def source(files: dict[str, list[Path]], config: DatasetConfig, columns: Sequence[str]) -> Source:
    """Opens the files that `find` found; `columns` are further ones of the training samples.

    Raises:
        DataError: A file is not Parquet, lacks a column or a label, or holds labels that are none.
    """
    check(files, config, columns)
    train, test = _split(files["train"], config, columns), _split(files["test"], config, ())
    return Source(train, test, class_names(_class_names(files, config), train.labels, test.labels, "dataset.path"))


def _named(folder: Path, split: str) -> list[Path]:
    return sorted(file for file in folder.glob("*.parquet") if _is_of(file, split))


def _is_of(file: Path, split: str) -> bool:
    return re.fullmatch(rf"{re.escape(split)}(-.*)?\.parquet", file.name) is not None


def _whole(folder: Path, split: str) -> list[Path]:
    """The files of a split: SPLIT.parquet, SPLIT-1.parquet and so on, or SPLIT-00001-of-00003.parquet and so on.

    Raises:
        DataError: They are not of one set, or not all of it is there, each file once.
    """
    files = _named(folder, split)
    parts = [re.fullmatch(_PART, file.stem[len(split) :]) for file in files]
    sets = {(part["name"], part["count"], part["number"] is None) for part in parts if part}
    names = _listed(file.name for file in files)
    if len(sets) > 1:
        raise DataError(f"dataset.path: {folder} has more than one set of {split!r} files; keep one of {names}")
    [(_, count, _)] = sets
    numbers = sorted(int(part["number"] or 0) for part in parts if part)
    first = int(count is not None and numbers[-1] == int(count))
    if count and not (len(numbers) == int(count) and numbers == list(range(first, first + len(numbers)))):
        raise DataError(
            f"dataset.path: {folder} must have the {split!r} files {first} to {first + int(count) - 1}, each once; it "
            f"has {names}"
        )
    return files


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _open(file: Path) -> Any:
    import pyarrow.parquet

    with _readable(file):
        return pyarrow.parquet.ParquetFile(file)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Around whatever reads a file, a cut or a damaged one perhaps."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"dataset.path: {file} is not a readable Parquet file, or is damaged") from error


def _parts(kind: Any) -> list[str]:
    """Names of a struct's fields; none of any other type."""
    import pyarrow

    return [field.name for field in kind] if pyarrow.types.is_struct(kind) else []


def _column(file: Path, name: str) -> Any:
    with _readable(file):
        return _open(file).read(columns=[name]).column(0)


def _batches(file: Path, column: str) -> Iterator[Any]:
    with _readable(file):
        yield from _open(file).iter_batches(_ROWS_AT_ONCE, columns=[column])


def _split(files: list[Path], config: DatasetConfig, columns: Sequence[str]) -> Split:
    import pyarrow

    parts = [_column(file, config.label_column) for file in files]
    for file, part in zip(files, parts):
        if part.null_count:
            row = part.is_null().index(True).as_py()
            raise without("a label", row, config.label_column, f"dataset.path: {file.name}")
        if len(part) and not pyarrow.types.is_integer(part.type):
            raise DataError(
                f"dataset.path: {file.name} has labels of type {part.type} in {config.label_column!r}; they must be "
                "integers from 0 without gaps; another column can be named with dataset.label_column"
            )
    labels = np.concatenate([part.to_numpy() for part in parts])
    further = {name: checked_column(name, _values(files, name), files[0].name) for name in columns}

    def read(rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        start = 0
        for file in files:
            first = start
            for batch in _batches(file, config.image_column):
                low, high = np.searchsorted(rows, (start, start + batch.num_rows))
                for row in rows[low:high]:
                    image = batch.column(0)[row - start].as_py()
                    if is_empty(image):
                        raise without("an image", row - first, config.image_column, f"dataset.path: {file.name}")
                    yield _bytes(image, file, config)
                start += batch.num_rows

    name = f"dataset.path: {files[0].name}"
    mode = _feature(files[0], config.image_column).get("mode")
    return Split(checked_labels(labels, name), read, lambda row: f"{name} (and on): image {row}", further, mode)


def _values(files: list[Path], column: str) -> list[Any]:
    return [value for file in files for value in _column(file, column).to_pylist()]


def _bytes(image: Any, file: Path, config: DatasetConfig) -> bytes:
    encoded = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(encoded, bytes):
        raise DataError(
            f"dataset.path: {file.name} has no encoded images in {config.image_column!r}; "
            "expected a struct with the field 'bytes'"
        )
    return encoded


def _class_names(files: dict[str, list[Path]], config: DatasetConfig) -> list[str] | None:
    own = {file.name: _names(file, config.label_column) for file in files["train"] + files["test"]}
    return names_of_all(own, "dataset.path")


def _names(file: Path, label_column: str) -> list[str] | None:
    """Class names, from the file's metadata; None where there are none."""
    names: Any = _feature(file, label_column).get("names")
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if known and len(set(names)) == len(names) else None


def _feature(file: Path, column: str) -> dict[str, Any]:
    """What the metadata that the Hub's files carry say of a column; empty where they say nothing."""
    metadata = (_open(file).schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        return dict(json.loads(metadata)["info"]["features"][column])
    except (ValueError, LookupError, TypeError, AttributeError):  # not as the Hub writes it
        return {}
