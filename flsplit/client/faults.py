"""Faults that a user asks for (`faults.*`), where they happen: in one client's round."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from compressors import Payload
from flsplit.config.faults import FaultsConfig, injected
from flsplit.split.messages import Uplink
from flsplit.streams import numpy_stream

_WORDS = {torch.float32: torch.int32, torch.int64: torch.int64, torch.float64: torch.int64}


class ClientFailed(Exception):
    """Why a client drops out of a round, in one line: nothing that the program, or the user, would have to mend."""


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

    def on_way(self, uplink: Uplink) -> Uplink:
        """What arrives of an uplink.

        Raises:
            ClientFailed: if the client crashes before it is sent.
        """
        if "crash" in self.names and uplink.step == self.step:
            raise ClientFailed(f"it has crashed in step {self.step + 1} (faults.crash)")
        payload = uplink.payload
        if "nan" in self.names and uplink.step >= self.step:
            payload = replace(payload, floats=tuple(torch.full_like(t, torch.nan) for t in payload.floats))
        if "flip" in self.names and uplink.step == self.step:
            payload = _flipped(payload, self.draw)
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


def _flipped(payload: Payload, draw: int) -> Payload:
    """`payload` with one bit of one of its floats turned over, as it lies in memory."""
    values = [t.clone() for t in payload.floats]
    at = draw % sum(t.numel() for t in values)
    for t in values:
        if at < t.numel():
            words = t.view(_WORDS[t.dtype]).view(-1)
            words[at] ^= 1 << ((draw >> 40) % (8 * t.element_size() - 1))
            break
        at -= t.numel()
    return replace(payload, floats=tuple(values))
