"""Data: from a source to a table on disk, from labels to clients, from a table to batches on the device."""

from flsplit.data.config import DatasetConfig
from flsplit.data.errors import DataError
from flsplit.data.partition import PartitionConfig, partition, split_holdout, validate
from flsplit.data.source import Dataset, check, load
from flsplit.data.table import Table

__all__ = [
    "DataError",
    "Dataset",
    "DatasetConfig",
    "PartitionConfig",
    "Table",
    "check",
    "load",
    "partition",
    "split_holdout",
    "validate",
]
