"""Group `faults`: what goes wrong on purpose, so that one can see what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from flsplit.errors import UserError
from flsplit.streams import numpy_stream

_LONGEST = 1e6  # seconds


@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """Probabilities, each for every client in every round; see `flsplit.client.faults`.

    Attributes:
        dropout: the client is away.
        crash: it raises in one of its steps.
        straggle: it starts `straggle_seconds` late.
        nan: what it sends turns to NaN, from one of its steps on.
        flip: a bit of what it sends in one of its steps is turned over.
        straggle_seconds: real ones, not simulated.
    """

    dropout: float = 0.0
    crash: float = 0.0
    straggle: float = 0.0
    nan: float = 0.0
    flip: float = 0.0
    straggle_seconds: float = 1.0

    @property
    def probabilities(self) -> dict[str, float]:
        """By the name of the fault."""
        return {
            "dropout": self.dropout, "crash": self.crash, "straggle": self.straggle, "nan": self.nan, "flip": self.flip,
        }  # fmt: skip

    @property
    def any(self) -> bool:
        """Whether anything can go wrong."""
        return any(self.probabilities.values())

    def check(self) -> None:
        """Refuse values that cannot be.

        Raises:
            UserError: naming the key.
        """
        for name, value in self.probabilities.items():
            if not 0 <= value <= 1:
                raise UserError(f"faults.{name} must be a probability between 0 and 1, got {value:g}")
        if not 0 <= self.straggle_seconds <= _LONGEST:
            raise UserError(
                f"faults.straggle_seconds must be between 0 and {_LONGEST:g} seconds, got {self.straggle_seconds:g}"
            )


def injected(config: FaultsConfig, seed: int, *, client: int, round: int, attempt: int) -> tuple[str, ...]:
    """The faults that befall a client in a round; who is away meets no other.

    They are drawn from a stream of their own, so that the same ones meet every compressor and every engine.

    Args:
        config: how likely each is.
        seed: of the run.
        client: who.
        round: from 1.
        attempt: at the round, from 0.
    """
    if not config.any:
        return ()
    chances = numpy_stream(seed, "faults", client, round, attempt).random(len(config.probabilities))
    names = tuple(name for chance, (name, p) in zip(chances, config.probabilities.items()) if chance < p)
    return ("dropout",) if "dropout" in names else names
