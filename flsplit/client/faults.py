"""Faults that a user asks for (`faults.*`), where they happen: in one client's round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from compressors import Layout, Payload
from flsplit.config.faults import FaultsConfig, injected
from flsplit.split.messages import Uplink
from flsplit.streams import numpy_stream

_WORDS = {torch.float32: torch.int32, torch.int64: torch.int64, torch.float64: torch.int64}


class ClientFailed(Exception):
    """Why a client drops out of a round, in one line: nothing that the program, or the user, would have to mend."""


class Diverged(ClientFailed):
    """A client drops out because its numbers are not finite."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What befalls a client in a round.

    Attributes:
        names: of the faults, in the order of `FaultsConfig`.
        step: in which a crash, NaN or a flip happens, from 0.
        draw: a number below 2^62, which says what bit is turned over.
        seconds: that a straggler comes late.
    """

    names: tuple[str, ...] = ()
    step: int = 0
    draw: int = 0
    seconds: float = 0.0

    def begin(self) -> None:
        """Before the client does anything.

        Raises:
            ClientFailed: if it is away.
        """
        if "dropout" in self.names:
            raise ClientFailed("it is away (faults.dropout)")
        if "straggle" in self.names:
            time.sleep(self.seconds)

    def on_way(self, uplink: Uplink, layout: Callable[[], Layout]) -> Uplink:
        """What arrives of an uplink.

        Args:
            uplink: as it is sent.
            layout: of its payload.

        Raises:
            ClientFailed: if the client crashes before it is sent.
        """
        if "crash" in self.names and uplink.step == self.step:
            raise ClientFailed(f"it has crashed in step {self.step + 1} (faults.crash)")
        payload = uplink.payload
        if "nan" in self.names and uplink.step >= self.step:
            payload = _spoilt(payload, layout())
        if "flip" in self.names and uplink.step == self.step:
            payload = _flipped(payload, layout(), self.draw)
        return uplink if payload is uplink.payload else replace(uplink, payload=payload)


def drawn(config: FaultsConfig, seed: int, *, client: int, round: int, attempt: int, steps: int) -> Faults:
    """The faults of a client in a round.

    Args:
        config: how likely each is.
        seed: of the run.
        client: who.
        round: from 1.
        attempt: at the round, from 0.
        steps: that the client is to take.
    """
    names = injected(config, seed, client=client, round=round, attempt=attempt)
    if not names:
        return Faults()
    stream = numpy_stream(seed, "fault", client, round, attempt)
    step, draw = int(stream.integers(max(1, steps))), int(stream.integers(1 << 62))
    return Faults(names=names, step=step, draw=draw, seconds=config.straggle_seconds)


def _spoilt(payload: Payload, layout: Layout) -> Payload:
    """`payload` with NaN in the place of its floats; without floats, with codes that are NaN: ones throughout."""
    fields, codes = _floats(layout), _codes(layout)
    floats = [torch.full_like(t, torch.nan) if at in fields else t for at, t in enumerate(payload.floats)]
    integers = list(payload.integers)
    for at in codes if not fields else ():
        integers[at] = torch.full_like(integers[at], 2 ** layout.integers[at].bits - 1)
    return replace(payload, floats=tuple(floats), integers=tuple(integers))


def _flipped(payload: Payload, layout: Layout, draw: int) -> Payload:
    """`payload` with one bit of one of its floats turned over, as it lies in memory; without floats, of its codes."""
    fields, codes = _floats(layout), _codes(layout)
    floats, integers = list(payload.floats), list(payload.integers)
    values, places = (floats, fields) if fields else (integers, codes)
    at = draw % max(1, sum(values[place].numel() for place in places))
    for place in places:
        if at < values[place].numel():
            values[place] = values[place].clone()
            words = values[place].view(_WORDS[values[place].dtype]).view(-1)
            bits = 8 * values[place].element_size() - 1 if fields else layout.integers[place].bits
            words[at] ^= 1 << ((draw >> 40) % bits)
            break
        at -= values[place].numel()
    return replace(payload, floats=tuple(floats), integers=tuple(integers))


def _floats(layout: Layout) -> list[int]:
    """Which fields of floats are sent."""
    return [at for at, field in enumerate(layout.floats) if field.bits]


def _codes(layout: Layout) -> list[int]:
    """Which fields of integers stand for values."""
    return [at for at, field in enumerate(layout.integers) if not field.protected]
