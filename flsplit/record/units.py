"""Units of axes: as large as suits what is drawn."""

from __future__ import annotations

_UNITS = {
    "bits": ((1e12, "terabits"), (1e9, "gigabits"), (1e6, "megabits"), (1e3, "kilobits"), (1, "bits")),
    "seconds": ((3 * 86400, "days"), (3 * 3600, "hours"), (1, "seconds")),
    "joules": ((1e6, "megajoules"), (1e3, "kilojoules"), (1, "joules")),
}
_SIZES = {"days": 86400.0, "hours": 3600.0}  # of units that begin elsewhere
_SHARES = {"test_accuracy": "test accuracy", "test_link_accuracy": "test accuracy over the link"}
_AMOUNTS = {  # what columns are called, and the kind of their units
    "bits": ("sent, models included", "bits"), "uplink_bits": ("sent to the server", "bits"),
    "downlink_bits": ("sent to clients", "bits"), "sync_bits": ("sent of models", "bits"),
    "seconds": ("time", "seconds"), "simulated_seconds": ("simulated time", "seconds"),
    "joules": ("energy of all clients", "joules"),
}  # fmt: skip


def unit(kind: str, largest: float) -> tuple[float, str]:
    """The unit that suits a number: its size, and what it is called.

    Args:
        kind: `bits`, `seconds` or `joules`.
        largest: in that unit.
    """
    least, name = next(pair for pair in _UNITS[kind] if largest >= pair[0] or pair[0] == 1)
    return _SIZES.get(name, least), name


def is_share(column: str) -> bool:
    """Whether a column of `rounds.parquet` is told in %."""
    return column in _SHARES


def axis(column: str, largest: float, now: str = "") -> tuple[str, float]:
    """How the axis of a column is called, and what its numbers are divided by.

    Args:
        column: as `flsplit.record.run.values` takes it.
        largest: of the numbers.
        now: what the axis is called by now; of units that there are for the column, it keeps its own.
    """
    if is_share(column):
        return f"{_SHARES[column]} (%)", 0.01
    if column not in _AMOUNTS:
        return column.replace("_", " "), 1.0
    what, kind = _AMOUNTS[column]
    units = [unit(kind, least) for least, _ in _UNITS[kind]]
    size, name = next((pair for pair in units if now == f"{what} ({pair[1]})"), unit(kind, largest))
    return f"{what} ({name})", size
