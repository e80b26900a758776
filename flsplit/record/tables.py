"""The tables that a run leaves: `rounds.parquet`, `clients.parquet`, `partition.parquet`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flsplit.record.loggers import Logger

_INT, _FLOAT = pa.int64(), pa.float64()
_CHUNKS = 64

ROUNDS = pa.schema(
    [
        ("round", _INT), ("samples", _INT), ("train_loss", _FLOAT), ("test_loss", _FLOAT), ("test_accuracy", _FLOAT),
        ("uplink_bits", _INT), ("downlink_bits", _INT), ("nominal_bits", _INT), ("wire_bytes", _INT),
        ("sync_bits", _INT), ("xi", _FLOAT), ("seconds", _FLOAT),
        ("simulated_seconds", _FLOAT),
    ]
)  # fmt: skip
CLIENTS = pa.schema(
    [
        ("round", _INT), ("client", _INT), ("samples", _INT), ("train_loss", _FLOAT), ("test_accuracy", _FLOAT),
        ("uplink_bits", _INT), ("downlink_bits", _INT), ("sync_bits", _INT), ("failed", pa.bool_()),
        ("reason", pa.string()), ("injected", pa.string()),
    ]
)  # fmt: skip
PARTITION = pa.schema([("client", _INT), ("label", _INT), ("count", _INT)])

Row = dict[str, Any]


def test_column(metric: str) -> str:
    """Column of a metric, of the global model or of clients' own ones."""
    return f"test_{metric}"


def write(path: Path, table: pa.Table) -> None:
    """Write a table so that a reader sees the old file or the new one, never half of it."""
    part = path.with_suffix(".part")
    pq.write_table(table, part)
    part.replace(path)


class Recorder:
    """Collects the rows of a run and writes them into its files.

    Args:
        folder: the run's.
        logger: is shown the rounds that the files have got; None for none.
        metrics: columns of an evaluation's metrics.
    """

    def __init__(self, folder: Path, logger: Logger | None = None, metrics: Iterable[str] = ()) -> None:
        self.folder, self.logger = folder, logger or Logger()
        self._rounds, self._clients = (
            pa.schema([*schema, *((name, _FLOAT) for name in map(test_column, metrics) if name not in schema.names)])
            .empty_table()
            for schema in (ROUNDS, CLIENTS)
        )  # fmt: skip
        self._new_rounds: list[Row] = []
        self._new_clients: list[Row] = []

    @property
    def rounds(self) -> list[Row]:
        """The rows of all rounds."""
        return [*self._rounds.to_pylist(), *self._new_rounds]

    def restore(self, last_round: int) -> None:
        """Take up the rows of a run that was cut off, up to its last checkpoint."""
        before = pc.field("round") <= last_round
        self._rounds = pq.read_table(self.folder / "rounds.parquet").filter(before)
        self._clients = pq.read_table(self.folder / "clients.parquet").filter(before)

    def add(self, round_row: Row, client_rows: Sequence[Row]) -> None:
        """One more round, which the files lack until they are saved."""
        self._new_rounds.append(round_row)
        self._new_clients += client_rows

    def save(self) -> None:
        """Bring the files up to date, and the logger."""
        new, self._rounds = len(self._new_rounds), _longer(self._rounds, self._new_rounds)
        self._clients = _longer(self._clients, self._new_clients)
        self._new_rounds, self._new_clients = [], []
        write(self.folder / "rounds.parquet", self._rounds)
        write(self.folder / "clients.parquet", self._clients)
        if new:
            self.logger.log(self._rounds, new)


def _longer(table: pa.Table, rows: Sequence[Row]) -> pa.Table:
    """`table` and `rows`; what it had is not copied, but for every 64th time."""
    if not rows:
        return table
    longer = pa.concat_tables([table, pa.Table.from_pylist(list(rows), schema=table.schema)])
    return longer.combine_chunks() if longer.column(0).num_chunks > _CHUNKS else longer


def write_partition(path: Path, labels: np.ndarray, clients: Sequence[np.ndarray]) -> None:
    """Write how many samples of each label each client has; labels that a client lacks have no row."""
    rows = []
    for client, indices in enumerate(clients):
        for label, count in zip(*np.unique(labels[indices], return_counts=True)):
            rows.append({"client": client, "label": int(label), "count": int(count)})
    write(path, pa.Table.from_pylist(rows, schema=PARTITION))
