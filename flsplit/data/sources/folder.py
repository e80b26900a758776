"""Class folders of images: `train/CLASS/*` and `test/CLASS/*`.

The class of an image is the folder next below `train` or `test`, however deep in it the image lies; links are followed,
hidden files and folders are not there.

Further columns of the training images come from `train/metadata.csv`, as the Hub's image folders have it: `file_name`
(CLASS/IMAGE) and any others.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from flsplit.data.config import DatasetConfig
from flsplit.data.errors import DataError
from flsplit.data.sources.reader import Source, Split, checked_column, no_column, several

EXTENSIONS = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
_METADATA = "metadata.csv"
_WHOLE = re.compile("0|-?[1-9][0-9]{0,17}")  # fits in an int64


def find(path: Path, config: DatasetConfig) -> dict[str, Path]:
    """The folders of the two splits.

    Raises:
        DataError: One of them is missing.
    """
    train = path / config.train_split
    tests = [path / name for name in config.test_names if (path / name).is_dir()]
    if not train.is_dir():
        raise DataError(
            f"dataset.path: {path} holds neither Parquet files ({config.train_split}-*.parquet, "
            f"{config.test_split}-*.parquet) nor class folders ({config.train_split}/CLASS/*, "
            f"{config.test_split}/CLASS/*)"
        )
    if not tests:
        there = ", ".join(f"{folder.name}/" for folder in _class_folders(path))
        raise DataError(
            f"dataset.path: {path} has no {config.test_split}/ to test on, only {there}; put images into "
            f"{config.test_split}/CLASS/*, or name another folder with dataset.test_split"
        )
    return {"train": train, "test": tests[0]}


def are_there(path: Path, config: DatasetConfig) -> bool:
    """Whether there is a class folder with a training image."""
    train = path / config.train_split
    return train.is_dir() and any(
        _is_image(file) for folder in _class_folders(train) for file in _below(folder, {train.resolve()})
    )


def files(path: Path, config: DatasetConfig, columns: Sequence[str]) -> list[Path]:
    """All images of both splits, in a fixed order, and the file with further columns where any are asked for."""
    folders = find(path, config)
    metadata = folders["train"] / _METADATA
    images = [image for folder in folders.values() for image, _ in _images(folder)]
    return [*images, metadata] if columns and metadata.is_file() else images


def passed_over(path: Path, config: DatasetConfig) -> Counter[str]:
    """How many files in the class folders of both splits are taken for no images, by the ending of their names."""
    found: Counter[str] = Counter()
    for folder in find(path, config).values():
        names = [file for file, _ in _files(folder) if not _is_image(file) and file.name != _METADATA]
        found.update(file.suffix.lower() for file in names)
    return found


def source(path: Path, config: DatasetConfig, columns: Sequence[str]) -> Source:
    """Opens the class folders at `path`; `columns` are further ones of the training samples.

    Raises:
        DataError: A split, a class, an image or a column is missing, or a test class is not in train.
    """
    folders = find(path, config)
    train, test = _images(folders["train"]), _images(folders["test"])
    for folder, images in ((folders["train"], train), (folders["test"], test)):
        if not images:
            raise DataError(f"dataset.path: no images in {folder}; expected {folder.name}/CLASS/*.jpg or alike")
    classes = sorted(_name(folder) for folder in _class_folders(folders["train"]))
    empty = sorted(set(classes) - {name for _, name in train})
    if empty:
        raise DataError(f"dataset.path: no images in {folders['train'] / empty[0]}; fill or remove that class")
    unknown = sorted({name for _, name in test} - set(classes))
    if unknown:
        raise DataError(
            f"dataset.path: the class {unknown[0]!r} is in {folders['test'].name}/ but not in "
            f"{folders['train'].name}/; both need the same class folders"
        )
    number = {name: label for label, name in enumerate(classes)}
    further = _columns(folders["train"], train, columns) if columns else {}
    return Source(_split(train, number, further), _split(test, number, {}), tuple(classes))


def _columns(folder: Path, images: list[tuple[Path, str]], names: Sequence[str]) -> dict[str, np.ndarray]:
    path, where = folder / _METADATA, f"{folder.name}/{_METADATA}"
    if not path.is_file():
        raise DataError(
            f"partition: dataset.path has no column {names[0]!r}; class folders have columns in {where}: "
            f"file_name (CLASS/IMAGE) and {', '.join(names)}"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            there = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"dataset.path: {where} cannot be read as a CSV file ({error})") from error
    for name in ("file_name", *names):
        if name not in there:
            raise no_column(name, there, where)
        if there.count(name) > 1:
            raise several(f"columns {name!r}", f"partition: {where}")
    if longer := [row for row in rows if None in row]:  # where csv puts what has no column
        raise DataError(
            f"partition: {where} has more values than columns in the row of {_cell(longer[0], 'file_name')}; put those "
            "with a comma in quotes"
        )
    of = {_cell(row, "file_name"): row for row in rows}
    if len(of) < len(rows):
        [(twice, _)] = Counter(_cell(row, "file_name") for row in rows).most_common(1)
        raise DataError(f"partition: {where} has several rows for {twice}; each image needs one")
    files = [image.relative_to(folder).as_posix() for image, _ in images]
    if absent := [file for file in files if file not in of]:
        raise DataError(f"partition: {where} has no row for {absent[0]}; every training image needs one")
    return {name: checked_column(name, _numbers([_cell(of[file], name) for file in files]), where) for name in names}


def _cell(row: dict[str, str | None], name: str) -> str:
    return (row[name] or "").strip()  # None where the row ends before


def _numbers(values: list[str]) -> list[str] | list[int]:
    """Whole numbers where all values are written as such: the tenth comes after the second. `01` is text."""
    return [int(value) for value in values] if all(map(_WHOLE.fullmatch, values)) else values


def _class_folders(folder: Path) -> list[Path]:
    found = sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    of: dict[str, Path] = {}
    for item in found:
        if (other := of.setdefault(_name(item), item)) != item:
            raise DataError(
                f"dataset.path: {folder} has two folders for the class {_name(item)!r}, whose names are the same text "
                f"in two Unicode forms ({other.name!a} and {item.name!a}); make them one"
            )
    return found


def _name(folder: Path) -> str:
    """The class of a folder: its name in Unicode's composed form, since some file systems keep the decomposed one.

    Raises:
        DataError: It is no text.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"dataset.path: the folder {folder.name!a} has a name that is no Unicode text") from error
    return unicodedata.normalize("NFC", folder.name)


def _images(folder: Path) -> list[tuple[Path, str]]:
    """(file, class) of every image below the class folders, sorted."""
    return [(file, name) for file, name in _files(folder) if _is_image(file)]


def _files(folder: Path) -> list[tuple[Path, str]]:
    """(file, class) of every file below the class folders, sorted; hidden ones are ignored, links followed."""
    real, found = folder.resolve(), []
    for class_folder in _class_folders(folder):
        files = sorted(_below(class_folder, {real, *real.parents}))
        found += [(file, _name(class_folder)) for file in files]
    return found


def _below(folder: Path, above: set[Path]) -> Iterator[Path]:
    """Files in `folder` and in the folders in it; `above` are those that it lies in.

    Raises:
        DataError: A link leads back to one of these.
    """
    real = folder.resolve()
    if real in above:
        raise DataError(f"dataset.path: the link {folder} leads back to {real}, in which it lies; remove it")
    with os.scandir(folder) as items:
        for item in items:
            if item.name.startswith("."):
                continue
            if item.is_dir():
                yield from _below(Path(item.path), {*above, real})
            else:
                yield Path(item.path)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS


def _split(images: list[tuple[Path, str]], number: dict[str, int], columns: dict[str, np.ndarray]) -> Split:
    def read(rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        for row in rows:
            yield images[row][0].read_bytes()

    labels = np.array([number[name] for _, name in images], np.int64)
    return Split(labels, read, lambda row: f"dataset.path: {images[row][0]}", columns)
