"""Data sets of the Hugging Face Hub, through `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flsplit.data.config import DatasetConfig
from flsplit.data.errors import DataError
from flsplit.data.sources.reader import Source, Split, checked_column, checked_labels, class_names, no_column
from flsplit.online import reachable


def check(config: DatasetConfig) -> None:
    """Looks whether the data set can be had: from the local cache of `datasets`, or over the network.

    Raises:
        DataError: It is not there and the Hub cannot be reached, or is switched off.
    """
    if not _cached(config) and not reachable():
        raise _unreachable(config)


def source(config: DatasetConfig, columns: Sequence[str]) -> Source:
    """Loads the data set, which downloads it once; `columns` are further ones of the training samples.

    Raises:
        DataError: The download failed, or the columns are not the expected ones.
    """
    import datasets

    try:
        loaded = [datasets.load_dataset(config.hub, split=name) for name in (config.train_split, config.test_split)]
    except (OSError, ConnectionError) as error:
        raise _unreachable(config) from error
    except ValueError as error:
        raise DataError(f"dataset={config.name}: {config.hub} on the Hub: {str(error).splitlines()[0]}") from error
    for key in ("image_column", "label_column"):
        if getattr(config, key) not in loaded[0].column_names:
            raise DataError(
                f"dataset.{key}: {config.hub} has no column {getattr(config, key)!r}, "
                f"only {', '.join(loaded[0].column_names)}"
            )
    others = [name for name in loaded[0].column_names if name != config.image_column]
    for column in columns:
        if column not in others:
            raise no_column(column, others, f"{config.hub} on the Hub")
    names = getattr(loaded[0].features[config.label_column], "names", None)
    train, test = (
        _split(part.cast_column(config.image_column, datasets.Image(decode=False)), config, further)
        for part, further in zip(loaded, (columns, ()))
    )
    return Source(train, test, class_names(names, train.labels, test.labels, f"dataset={config.name}"))


def _split(part: Any, config: DatasetConfig, columns: Sequence[str]) -> Split:
    labels = np.asarray(part.with_format("numpy", columns=[config.label_column])[:][config.label_column])

    def read(rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        for row in part.select_columns([config.image_column]).select(rows):
            image = row[config.image_column]
            yield image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()

    name = f"dataset={config.name}"
    further = {column: checked_column(column, part.select_columns([column])[:][column], name) for column in columns}
    return Split(checked_labels(labels, name), read, lambda row: f"{name}: image {row}", further)


def _unreachable(config: DatasetConfig) -> DataError:
    return DataError(
        f"dataset={config.name} needs the Hugging Face Hub, which cannot be reached; "
        "give a local copy with dataset.path=FOLDER"
    )


def _cached(config: DatasetConfig) -> bool:
    """Whether `datasets` keeps a prepared copy on this machine (found without importing it: that is slow)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    home = Path(os.environ.get("HF_HOME") or home)
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    return any((cache / str(config.hub).replace("/", "___")).glob("**/dataset_info.json"))
