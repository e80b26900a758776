"""The tables that a run leaves: `rounds.parquet`, `clients.parquet`, `partition.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_INT, _FLOAT = pa.int64(), pa.float64()

ROUNDS = pa.schema(
    [
        ("round", _INT), ("samples", _INT), ("train_loss", _FLOAT), ("test_loss", _FLOAT), ("test_accuracy", _FLOAT),
        ("uplink_bits", _INT), ("downlink_bits", _INT), ("nominal_bits", _INT), ("wire_bytes", _INT),
        ("sync_bits", _INT), ("xi", _FLOAT), ("seconds", _FLOAT),
    ]
)  # fmt: skip
CLIENTS = pa.schema(
    [
        ("round", _INT), ("client", _INT), ("samples", _INT), ("train_loss", _FLOAT), ("test_accuracy", _FLOAT),
        ("uplink_bits", _INT), ("downlink_bits", _INT), ("sync_bits", _INT), ("failed", pa.bool_()),
    ]
)  # fmt: skip
PARTITION = pa.schema([("client", _INT), ("label", _INT), ("count", _INT)])

Row = dict[str, Any]


def write(path: Path, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table so that a reader sees the old file or the new one, never half of it."""
    part = path.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), part)
    part.replace(path)


def read(path: Path) -> list[Row]:
    """The rows of a table."""
    return pq.read_table(path).to_pylist()


class Recorder:
    """Collects the rows of a run and keeps its files up to date."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rounds: list[Row] = []
        self.clients: list[Row] = []

    def restore(self, last_round: int) -> None:
        """Take up the rows of a run that was cut off, up to its last checkpoint."""
        self.rounds = [r for r in read(self.folder / "rounds.parquet") if r["round"] <= last_round]
        self.clients = [r for r in read(self.folder / "clients.parquet") if r["round"] <= last_round]

    def add(self, round_row: Row, client_rows: Sequence[Row]) -> None:
        """One more round."""
        self.rounds.append(round_row)
        self.clients.extend(client_rows)
        self.save()

    def save(self) -> None:
        """Bring the files up to date."""
        write(self.folder / "rounds.parquet", ROUNDS, self.rounds)
        write(self.folder / "clients.parquet", CLIENTS, self.clients)


def write_partition(path: Path, labels: np.ndarray, clients: Sequence[np.ndarray]) -> None:
    """Write how many samples of each label each client has; labels that a client lacks have no row."""
    rows = []
    for client, indices in enumerate(clients):
        for label, count in zip(*np.unique(labels[indices], return_counts=True)):
            rows.append({"client": client, "label": int(label), "count": int(count)})
    write(path, PARTITION, rows)
