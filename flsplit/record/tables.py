"""The tables that a run leaves: `rounds.parquet`, `clients.parquet`, `partition.parquet`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flsplit.record import atomic
from flsplit.record.loggers import Loggers, Told

_INT, _FLOAT = pa.int64(), pa.float64()
_CHUNKS = 64

ROUNDS = pa.schema(
    [
        ("round", _INT), ("samples", _INT), ("train_loss", _FLOAT), ("test_loss", _FLOAT), ("test_accuracy", _FLOAT),
        ("uplink_bits", _INT), ("downlink_bits", _INT), ("nominal_bits", _INT), ("wire_bytes", _INT),
        ("sync_bits", _INT), ("retransmitted_bits", _INT), ("xi", _FLOAT), ("seconds", _FLOAT),
        ("simulated_seconds", _FLOAT), ("joules", _FLOAT),
    ]
)  # fmt: skip
CLIENTS = pa.schema(
    [
        ("round", _INT), ("client", _INT), ("samples", _INT), ("train_loss", _FLOAT), ("test_accuracy", _FLOAT),
        ("uplink_bits", _INT), ("downlink_bits", _INT), ("sync_bits", _INT), ("retransmitted_bits", _INT),
        ("compute_seconds", _FLOAT), ("transfer_seconds", _FLOAT), ("waiting_seconds", _FLOAT), ("joules", _FLOAT),
        ("failed", pa.bool_()),
        ("reason", pa.string()), ("injected", pa.string()),
    ]
)  # fmt: skip
PARTITION = pa.schema([("client", _INT), ("label", _INT), ("count", _INT)])

NAMES = ("rounds.parquet", "clients.parquet")

Row = dict[str, Any]


def test_column(metric: str) -> str:
    """Column of a metric, of the global model or of clients' own ones."""
    return f"test_{metric}"


def write(path: Path, table: pa.Table) -> None:
    """Write a table so that a reader sees the old file or the new one, never half of it."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    atomic.write(path, buffer.getvalue().to_pybytes())


def content(table: pa.Table) -> str:
    """A digest of what is in a table, however it is stored."""
    parts = [str(table.schema.names)]
    for column in table.combine_chunks().itercolumns():
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            data = np.ascontiguousarray(column.to_numpy()).tobytes()
        else:
            data = repr(column.to_pylist()).encode()
        parts += [str(column.null_count), atomic.digest(data)]
    return atomic.digest(repr(parts).encode())


class Recorder:
    """Collects the rows of a run and writes them into its files.

    Args:
        folder: the run's.
        loggers: are shown the rounds that the files have got; None for none.
        metrics: columns of an evaluation's metrics.
    """

    def __init__(self, folder: Path, loggers: Loggers | None = None, metrics: Iterable[str] = ()) -> None:
        self.folder, self.loggers = folder, loggers or Loggers([], Told(folder))
        self._rounds, self._clients = (
            pa.schema([*schema, *((name, _FLOAT) for name in map(test_column, metrics) if name not in schema.names)])
            .empty_table()
            for schema in (ROUNDS, CLIENTS)
        )  # fmt: skip
        self._new_rounds: list[Row] = []
        self._new_clients: list[Row] = []
        self._untold = 0  # rounds at the end that loggers have to be shown
        self._ahead: set[str] = set()  # files that have more than the checkpoint: what it needs is in those before

    @property
    def rounds(self) -> list[Row]:
        """The rows of all rounds."""
        return [*self._rounds.to_pylist(), *self._new_rounds]

    @property
    def contents(self) -> dict[str, str]:
        """Digest of what each file holds, by its name; as last saved."""
        return {name: content(table) for name, table in zip(NAMES, (self._rounds, self._clients))}

    def restore(self, last_round: int, contents: Mapping[str, str] | None = None) -> None:
        """Take up the rows of a run that was cut off, up to its last checkpoint.

        Args:
            last_round: of that checkpoint.
            contents: what `contents` was then; None where nobody knows.

        Raises:
            ValueError: if no file holds that: neither the last one nor the one that was there before it.
        """
        found = {
            name: _restored(self.folder / name, last_round, None if contents is None else contents[name])
            for name in NAMES
        }
        self._rounds, self._clients = (table for table, _ in found.values())
        self._ahead = {name for name, (_, file) in found.items() if file != self.folder / name}
        self._untold = len(self._rounds)  # they may have lost what they were shown, or have more

    def reopen(self) -> None:
        """There are rounds to come: what a summary says of an earlier end does not hold any more."""
        (self.folder / "summary.json").unlink(missing_ok=True)

    def unscore(self) -> None:
        """Take back the evaluation of the last round: it was due to an end that is none any more."""
        self._rounds, self._clients = _unscored(self._rounds), _unscored(self._clients)

    def add(self, round_row: Row, client_rows: Sequence[Row]) -> None:
        """One more round, which the files lack until they are saved."""
        self._new_rounds.append(round_row)
        self._new_clients += client_rows

    def save(self) -> None:
        """Bring the files up to date."""
        self._untold += len(self._new_rounds)
        self._rounds = _longer(self._rounds, self._new_rounds)
        self._clients = _longer(self._clients, self._new_clients)
        self._new_rounds, self._new_clients = [], []
        for name, table in zip(NAMES, (self._rounds, self._clients)):
            if name not in self._ahead:
                _keep(self.folder / name)
            write(self.folder / name, table)
        self._ahead = set()

    def tell(self) -> None:
        """Bring the loggers up to what the files have."""
        if self._untold:
            self.loggers.log(self._rounds, self._untold)
        self._untold = 0


def before(path: Path) -> Path:
    """Where the file that was at `path` before the present one is kept, for the checkpoint before the last."""
    return path.parent / "checkpoint" / f"{path.stem}-before{path.suffix}"


def _keep(path: Path) -> None:
    if path.exists() and before(path).parent.is_dir():
        before(path).unlink(missing_ok=True)
        os.link(path, before(path))


def _restored(path: Path, last_round: int, wanted: str | None) -> tuple[pa.Table, Path]:
    """The table, and the file that had it."""
    for file in (path, before(path)):
        try:
            table = pq.read_table(file).filter(pc.field("round") <= last_round)
        except (OSError, ValueError, KeyError):
            continue
        if wanted is None or content(table) == wanted:
            return table, file
    raise ValueError(f"{path.name} is missing or damaged")


def _unscored(table: pa.Table) -> pa.Table:
    """`table` with nothing in the columns of an evaluation in its last round."""
    last = pc.equal(table["round"], pc.max(table["round"]))
    for number, name in enumerate(table.column_names):
        if name.startswith(test_column("")):
            empty = pc.if_else(last, pa.scalar(None, _FLOAT), table[name])
            table = table.set_column(number, table.schema.field(number), empty)
    return table


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
