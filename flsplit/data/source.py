"""From a configuration to a data set on disk: check it, build its table once, map it from then on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flsplit.data import cache
from flsplit.data.build import Tell, write_table
from flsplit.data.config import DatasetConfig
from flsplit.data.errors import DataError
from flsplit.data.partitions.interface import Samples
from flsplit.data.sources import arrow, digits, folder, hub, parquet
from flsplit.data.sources.reader import Source, Split
from flsplit.data.subset import stratified
from flsplit.data.table import Table
from flsplit.errors import nearest_path
from flsplit.streams import numpy_stream

if TYPE_CHECKING:
    from datasets import DatasetDict

_FORMAT = 4  # of the files in the cache; raise it when they change, or are checked for more


@dataclass(frozen=True)
class Dataset:
    """Two memory-mapped tables and the names of the classes.

    Attributes:
        train: The training samples.
        test: The test samples.
        classes: Name of every label.
        path: The folder in the cache; `Dataset.open` maps it again, in another process too.
    """

    train: Table
    test: Table
    classes: tuple[str, ...]
    path: Path

    @property
    def fingerprint(self) -> str:
        """A digest of rows, labels, pixels and classes; worked out once and kept beside them."""
        return cache.digest_of(self.path)

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Maps the data set in `path`, which `load` has built."""
        path = Path(path)
        classes = json.loads((path / "classes.json").read_text(encoding="utf-8"))
        return cls(Table.open(path, "train"), Table.open(path, "test"), tuple(classes), path)

    def samples(self, columns: Sequence[str]) -> Samples:
        """The training samples with the `columns` that they were loaded with, to be dealt out."""
        further = {name: self.train.column(name) for name in columns}
        return Samples(labels=self.train.labels, classes=len(self.classes), columns=further)


def check(config: DatasetConfig, *, seed: int = 0, columns: Sequence[str] = (), cache_dir: Path | None = None) -> None:
    """Finds the mistakes that can be found quickly; reads no images and writes nothing.

    Args:
        config: What to check.
        seed: The run's seed; with it a table that is in the cache already needs no Hub.
        columns: See `load`.
        cache_dir: The cache; by default the user's.

    Raises:
        DataError: One line about the first mistake.
    """
    for key in ("train_limit", "test_limit", "max_side"):
        value = getattr(config, key)
        if value is not None and value < 1:
            raise DataError(f"dataset.{key}={value}: must be 1 or more, or null")
    if config.test_split == config.train_split:
        raise DataError(f"dataset.test_split={config.test_split}: the model is trained on that split; name another one")
    path = _local(config)
    if path is not None:
        if arrow.is_saved(path):
            arrow.splits(path, config)
        elif (files := parquet.find(path, config)) is not None:
            parquet.check(files, config, columns)
        else:
            folder.source(path, config, columns)
    elif config.name == "digits":
        digits.check(columns)
    elif not _place(config, seed, columns, cache_dir).is_dir():
        hub.check(config)


def load(
    config: DatasetConfig, *, seed: int, columns: Sequence[str] = (), cache_dir: Path | None = None,
    tell: Tell | None = None,
) -> Dataset:  # fmt: skip
    """Builds the data set's tables in the cache if they are not there, and maps them.

    Args:
        config: Which data set.
        seed: Chooses the samples when there is a limit.
        columns: Further columns that the training samples are to have beside image and label (`Table.column`); a
            table with other columns is another one in the cache.
        cache_dir: The cache; by default `$FLSPLIT_CACHE`, or `flsplit` in the user's cache folder.
        tell: Told how far a table is that has to be built: its name, images done, images of it.

    Raises:
        DataError: The data cannot be found or read.
    """
    place = _place(config, seed, columns, cache_dir)
    cache.build_once(place, lambda temporary: _write(config, seed, columns, temporary, tell))
    return Dataset.open(place)


def kept(dataset: DatasetDict, *, cache_dir: Path | None = None) -> Path:
    """A folder in the cache with this data set, written by its own `save_to_disk` unless it is there.

    It is found again by the content of the rows and of the files that they name, however they have come about.

    Raises:
        DataError: It is something else, has a transform, or names an image that cannot be read.
    """
    from datasets import DatasetDict

    if not isinstance(dataset, DatasetDict):
        raise DataError(f"dataset must be a DatasetDict with train and test, got {type(dataset).__name__}")
    for name, split in dataset.items():
        if "transform" in split.format["format_kwargs"]:
            raise DataError(
                f"dataset: the split {name!r} has a transform, which would not be applied; apply it with map(), or "
                "remove it with reset_format()"
            )
    dataset = dataset.with_format(None)  # which may hide columns, or give something else than images
    splits = {name: arrow.digest(split) for name, split in dataset.items()}
    outside = [arrow.outside(split, f"dataset: the split {name!r}") for name, split in dataset.items()]
    files = sorted({file for found in outside for file in found})
    name = cache.fingerprint(splits=splits, files=cache.listing(files, Path(files[0].anchor if files else "")))
    place = (cache_dir or cache.root()) / f"given-{name}"
    cache.build_once(place, lambda temporary: arrow.save(dataset, temporary))
    return place


def split_for_tests(config: DatasetConfig) -> str:
    """Name of the split that is tested on: of a local copy without the usual one, another of `test_names`.

    Raises:
        DataError: There is none.
    """
    path = _local(config)
    if path is None:
        return config.test_split
    if arrow.is_saved(path):
        return arrow.splits(path, config)[1]
    files = parquet.find(path, config)
    return folder.find(path, config)["test"].name if files is None else parquet.split_for_tests(files, config)


def passed_over(config: DatasetConfig) -> str:
    """How many files in class folders are taken for no images, as `2 .avif, 1 .txt`; empty where there are none."""
    path = _local(config)
    if path is None or arrow.is_saved(path) or parquet.find(path, config) is not None:
        return ""
    endings = folder.passed_over(path, config).most_common()
    return ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in endings)


def _local(config: DatasetConfig) -> Path | None:
    """The local copy that the configuration names; None for the digits and the Hub.

    Raises:
        DataError: There is none, or it holds data in more than one form.
    """
    if config.name == "digits":
        if config.path is not None:
            raise DataError("dataset.path: the digits come with scikit-learn; leave it null or choose dataset=folder")
        return None
    if config.path is None:
        if config.hub is None:
            raise DataError(
                f"dataset={config.name} needs dataset.path=FOLDER with class folders of images "
                "(train/CLASS/*, test/CLASS/*)"
            )
        return None
    path = Path(config.path).expanduser()
    if not path.is_dir():
        wrong = "not a folder" if path.exists() else "no such folder"
        raise DataError(f"dataset.path: {wrong}: {config.path}{nearest_path(config.path)}")
    _check_form(path, config)
    return path


def _check_form(path: Path, config: DatasetConfig) -> None:
    """Refuses a folder with data in two forms, of which one would be passed over."""
    files = parquet.folders(path, config)
    forms = ["what save_to_disk left"] if arrow.is_saved(path) else []
    if files:
        forms.append(f"Parquet files ({(files[0] / config.train_split).relative_to(path)}*.parquet)")
    if forms and folder.are_there(path, config):
        forms.append(f"class folders of images ({config.train_split}/CLASS/*)")
    if len(forms) > 1:
        other = f", or name the folder {files[0]}" if files and files[0] != path else ""
        raise DataError(f"dataset.path: {path} holds {' and '.join(forms)}; leave only one of them in it{other}")


def _source(config: DatasetConfig, columns: Sequence[str]) -> Source:
    if config.name == "digits":
        return digits.source(columns)
    path = _local(config)
    if path is None:
        return hub.source(config, columns)
    if arrow.is_saved(path):
        return arrow.source(path, config, columns)
    files = parquet.find(path, config)
    return folder.source(path, config, columns) if files is None else parquet.source(files, config, columns)


def _place(config: DatasetConfig, seed: int, columns: Sequence[str], cache_dir: Path | None) -> Path:
    """The folder in the cache; its name changes with everything that determines the content."""
    content: dict[str, object] = {**asdict(config), "format": _FORMAT}
    del content["augment"]
    if config.train_limit is not None or config.test_limit is not None:
        content["seed"] = seed
    if columns:
        content["columns"] = sorted(columns)
    path = _local(config)
    if path is not None:
        content["path"] = cache.listing(_files(path, config, columns), path)
    return (cache_dir or cache.root()) / f"{config.name}-{cache.fingerprint(**content)}"


def _files(path: Path, config: DatasetConfig, columns: Sequence[str]) -> list[Path]:
    """All that a local copy consists of."""
    if arrow.is_saved(path):
        return arrow.files(path)
    files = parquet.find(path, config)
    return folder.files(path, config, columns) if files is None else files["train"] + files["test"]


def _write(config: DatasetConfig, seed: int, columns: Sequence[str], place: Path, tell: Tell | None) -> None:
    source = _source(config, columns)
    splits = {"train": (source.train, config.train_limit), "test": (source.test, config.test_limit)}
    bits = None  # of grey images: the training images say
    for name, (split, limit) in splits.items():
        bits = write_table(place, name, split, _rows(split, limit, seed, name), config.max_side, tell, bits)
    (place / "classes.json").write_text(json.dumps(source.classes), encoding="utf-8")


def _rows(split: Split, limit: int | None, seed: int, name: str) -> np.ndarray:
    if limit is None:
        return np.arange(len(split.labels))
    return stratified(split.labels, limit, numpy_stream(seed, "subset", name))
