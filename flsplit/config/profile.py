"""Clients that differ: `client_profile`, a CSV file with a row for each client that is not like the others."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flsplit.data.order import step_sizes
from flsplit.errors import UserError, nearest, nearest_path
from flsplit.network.devices import FROM_ZERO, OF_A_DEVICE

if TYPE_CHECKING:
    from flsplit.config.schema import Config


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How one client differs; None: as the run's own keys say.

    Attributes:
        ratio: compression ratio, in (0, 1].
        batch_size: samples per step.
        local_steps: steps per round, instead of `local_epochs`.
        speed: the share of its steps that it manages in a round, in (0, 1], rounded up.
        uplink_mbps: its device and link, see `flsplit.network.NetworkConfig`; as are all below.
    """

    ratio: float | None = None
    batch_size: int | None = None
    local_steps: int | None = None
    speed: float | None = None
    uplink_mbps: float | None = None
    downlink_mbps: float | None = None
    latency_ms: float | None = None
    jitter_ms: float | None = None
    flops: float | None = None
    compute_power_w: float | None = None
    send_power_w: float | None = None
    receive_power_w: float | None = None

    def schedule(self, config: Config) -> dict[str, Any]:
        """Size of a client's batches, and how many it takes in a round; see `flsplit.data.order.step_sizes`."""
        return {
            "batch_size": self.batch_size or config.batch_size,
            "local_epochs": config.local_epochs,
            "local_steps": self.local_steps or config.local_steps,
        }

    def step_sizes(self, config: Config, samples: int, group_size: int) -> list[int]:
        """Samples in each step of a round, as many as the client manages.

        Args:
            config: of the run.
            samples: that it trains on.
            group_size: samples that are compressed together.
        """
        sizes = step_sizes(samples, **self.schedule(config), group_size=group_size)
        return sizes[: math.ceil((self.speed or 1.0) * len(sizes))]


_MOST = 1_000_000_000  # of anything that is counted
_COUNT = (lambda x: 1 <= x <= _MOST, f"at least 1 and at most {_MOST}")
_BOUNDS = {
    **dict.fromkeys(("ratio", "speed"), (lambda x: 0 < x <= 1, "above 0 and at most 1")),
    **{key: (lambda x: 1e-9 <= x <= 1e30, "above 0") for key in OF_A_DEVICE if key not in FROM_ZERO},
    **{key: (lambda x: 0 <= x <= 1e30, "at least 0") for key in FROM_ZERO},
}
_COLUMNS = {field.name: int if "int" in str(field.type) else float for field in fields(Profile)}


def read_profiles(path: Path, clients: int) -> dict[int, Profile]:
    """Read a profile; an empty cell, and a client without a row, is like the run.

    Args:
        path: a CSV file with the column `client` (from 0) and any of a `Profile`'s.
        clients: how many there are.

    Raises:
        UserError: naming the line, what is wrong and what would be right.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            _check_header(path, [str(name) for name in reader.fieldnames or []])
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"client_profile: {path} cannot be read: {reason}{nearest_path(path)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"client_profile: {path} cannot be read as a CSV file ({error})") from error
    found: dict[int, Profile] = {}
    for line, row in rows:
        where = f"client_profile: {path.name} line {line}"
        if None in row:
            raise UserError(f"{where} has more cells than the header")
        client = _number(row["client"], int, where, "client")
        if client is None or not 0 <= client < clients:
            raise UserError(f"{where}: client must be between 0 and {clients - 1}, got {row['client']!r}")
        if client in found:
            raise UserError(f"{where}: client {client} has a row already")
        values = {name: _number(row.get(name), kind, where, name) for name, kind in _COLUMNS.items()}
        for name, value in values.items():
            if value is not None and not _BOUNDS.get(name, _COUNT)[0](value):
                raise UserError(f"{where}: {name} must be {_BOUNDS.get(name, _COUNT)[1]}, got {value:g}")
        found[int(client)] = Profile(**values)  # type: ignore[arg-type]
    return found


def _check_header(path: Path, names: list[str]) -> None:
    known = ["client", *_COLUMNS]
    if len(names) == 1 and (other := next((sign for sign in ";\t|" if sign in names[0]), None)):
        raise UserError(f"client_profile: {path.name} must have its columns separated by commas, not by {other!r}")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"client_profile: {path.name} has the column {name!r} twice; keep one")
        if name not in known:
            raise UserError(
                f"client_profile: {path.name} has an unknown column {name!r}{nearest(name, known)}; "
                f"known are {', '.join(known)}"
            )
    if "client" not in names:
        raise UserError(f"client_profile: {path.name} must have a column client")


def _number(text: str | None, kind: type, where: str, name: str) -> float | int | None:
    if text is None or not text.strip():
        return None
    try:
        if "_" in text or not text.isascii():  # which Python reads as numbers
            raise ValueError(text)
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise UserError(f"{where}: {name} must be {wanted}, got {text!r}") from None
