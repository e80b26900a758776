"""Data: from a source to a table on disk, from labels to clients, from a table to batches on the device."""

from flsplit.data.config import DatasetConfig
from flsplit.data.errors import DataError
from flsplit.data.partitions.deal import deal, split_holdout
from flsplit.data.partitions.interface import Partition, Samples
from flsplit.data.partitions.interface import available as available_partitions
from flsplit.data.partitions.interface import build as build_partition
from flsplit.data.source import Dataset, check, kept, load, passed_over, split_for_tests
from flsplit.data.table import Table

__all__ = [
    "DataError",
    "Dataset",
    "DatasetConfig",
    "Partition",
    "Samples",
    "Table",
    "available_partitions",
    "build_partition",
    "check",
    "deal",
    "kept",
    "load",
    "passed_over",
    "split_for_tests",
    "split_holdout",
]
