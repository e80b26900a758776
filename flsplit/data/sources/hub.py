"""Data sets of the Hugging Face Hub, through `datasets`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from flsplit.data.config import DatasetConfig
from flsplit.data.errors import DataError
from flsplit.data.sources.arrow import of_datasets
from flsplit.data.sources.reader import Source
from flsplit.online import DATASETS, HUB, bars, reachable


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
        with bars(DATASETS, HUB):
            loaded = [datasets.load_dataset(config.hub, split=name) for name in (config.train_split, config.test_split)]
    except (OSError, ConnectionError) as error:
        raise _unreachable(config) from error
    except ValueError as error:
        raise DataError(f"dataset={config.name}: {config.hub} on the Hub: {str(error).splitlines()[0]}") from error
    return of_datasets(loaded[0], loaded[1], config, columns, f"{config.hub} on the Hub")


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
