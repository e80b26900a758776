"""Group `network`: how fast clients compute and send, and what power that takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from flsplit.errors import UserError, shown
from flsplit.streams import numpy_stream

Given = float | list[float]
ON_DEADLINE = ("drop", "partial")
_UNITS = {"uplink_mbps": 1e6, "downlink_mbps": 1e6, "latency_ms": 1e-3, "jitter_ms": 1e-3}
FROM_ZERO = ("latency_ms", "jitter_ms", "compute_power_w", "send_power_w", "receive_power_w")
_LARGEST = 1e30


@dataclass(frozen=True, kw_only=True)
class Device:
    """One client's device and link.

    Attributes:
        uplink: bits/s from the client.
        downlink: bits/s to it.
        latency: seconds that every message takes beside its bits.
        jitter: seconds; each message is late by as much at most, evenly drawn.
        flops: floating-point operations per second, a multiplication and an addition counted as two.
        compute_power_w: watts while it computes.
        send_power_w: watts while it sends.
        receive_power_w: watts while it receives.
    """

    uplink: float
    downlink: float
    latency: float
    jitter: float
    flops: float
    compute_power_w: float
    send_power_w: float
    receive_power_w: float


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Group `network`, unless it is `none`.

    Numbers of clients are one for all, or [least, largest]: then each client draws its own, evenly in the logarithm
    (from 0: evenly).

    Attributes:
        name: of the profile.
        uplink_mbps: 10^6 bits/s from a client.
        downlink_mbps: 10^6 bits/s to it.
        latency_ms: one way, of every message.
        jitter_ms: most that a message is late beyond that.
        flops: operations/s of a client.
        compute_power_w: watts of a client while it computes.
        send_power_w: watts while it sends.
        receive_power_w: watts while it receives.
        server_flops: operations/s of the server for each replica, or in all for one server-side model that clients
            share; None: its work takes no time.
        pipeline: whether a batch crosses in pieces, so that sending overlaps with computing.
        round_deadline_s: simulated seconds after which a round is over; None for no deadline.
        on_deadline: clients that would be late are left out (`drop`), or take only the steps for which there is time
            (`partial`).
    """

    name: str
    uplink_mbps: Given
    downlink_mbps: Given
    latency_ms: Given = 0.0
    jitter_ms: Given = 0.0
    flops: Given
    compute_power_w: Given = 0.0
    send_power_w: Given = 0.0
    receive_power_w: Given = 0.0
    server_flops: float | None = None
    pipeline: bool = False
    round_deadline_s: float | None = None
    on_deadline: str = "drop"

    def check(self) -> None:
        """Refuse values that cannot be.

        Raises:
            UserError: naming the key.
        """
        for key in OF_A_DEVICE:
            bounds = getattr(self, key)
            pair = bounds if isinstance(bounds, list) else [bounds, bounds]
            least = 0.0 if key in FROM_ZERO else 1e-9
            if len(pair) != 2 or not all(least <= value <= _LARGEST for value in pair) or pair[0] > pair[1]:
                right = "at least 0" if key in FROM_ZERO else "above 0"
                raise UserError(
                    f"network.{key} must be a number {right}, or [least, largest] of such, got {shown(bounds)}"
                )
        for key in ("server_flops", "round_deadline_s"):
            value = getattr(self, key)
            if value is not None and not 0 < value <= _LARGEST:
                raise UserError(f"network.{key} must be above 0, or null, got {value:g}")
        if self.on_deadline not in ON_DEADLINE:
            raise UserError(
                f"network.on_deadline must be one of {', '.join(ON_DEADLINE)}, got {shown(self.on_deadline)}"
            )

    def device(self, client: int, seed: int, own: Mapping[str, float | None]) -> Device:
        """The device of a client.

        Args:
            client: who.
            seed: of the run; a client draws the same device whatever else is configured.
            own: values of its own, by key; None where it is like the others.
        """
        chances = numpy_stream(seed, "device", client).random(len(OF_A_DEVICE))
        drawn = {key: _between(getattr(self, key), chance) for key, chance in zip(OF_A_DEVICE, chances)}
        values = {key: drawn[key] if own.get(key) is None else own[key] for key in OF_A_DEVICE}
        return Device(
            **{
                key.rpartition("_")[0] if key in _UNITS else key: value * _UNITS.get(key, 1.0)  # type: ignore[operator]
                for key, value in values.items()
            }
        )


OF_A_DEVICE = tuple(field.name for field in fields(NetworkConfig) if field.type == "Given")


def _between(bounds: Given, chance: float) -> float:
    if not isinstance(bounds, list):
        return float(bounds)
    least, largest = bounds
    if least <= 0:
        return least + (largest - least) * chance
    return least if least == largest else least * math.exp(chance * math.log(largest / least))
