"""Models that move between a client and the server, apart from what their steps send."""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Floats of a model that moves.

    Attributes:
        travels: of what is trained and averaged, whenever it moves.
        stays: of what a client needs once and keeps: parameters that are not trained, buffers of its own.
        told: of what a client says once of itself: how many samples of each label it has.
    """

    travels: int
    stays: int = 0
    told: int = 0

    def __add__(self, other: ModelSize) -> ModelSize:
        return ModelSize(
            travels=self.travels + other.travels, stays=self.stays + other.stays, told=self.told + other.told
        )


@dataclass(frozen=True, kw_only=True)
class Moves:
    """Which models a strategy moves between a client and the server; gradients of a model count as one.

    Attributes:
        first: to a client when it takes part for the first time.
        down: to a client at the start of each of its rounds.
        up: back from it at the end, if it comes to that.
        step: both ways in each of its steps.
        whole: whether these are whole models rather than client-side models.
    """

    first: int = 0
    down: int = 0
    up: int = 0
    step: int = 0
    whole: bool = False

    def bits(
        self, size: ModelSize, *, first: bool, steps: int, came_up: bool = True, came_down: int | None = None
    ) -> int:
        """What one client's round moves.

        Args:
            size: of one such model.
            first: whether it is the client's first round.
            steps: that it has finished.
            came_up: whether it has sent its model back.
            came_down: bits of models that have come to it; None for all.
        """
        down, whole = self.arrived(size, first=first, came_down=came_down)
        steps_bits = FLOAT_BITS * size.travels * self.step * steps
        return down + steps_bits + self.up_bits(size, first=first and whole, came_up=came_up)

    def arrived(self, size: ModelSize, *, first: bool, came_down: int | None) -> tuple[int, bool]:
        """Bits that have come to a client at the start of its round, and whether that is all; see `bits`."""
        whole = self.down_bits(size, first=first)
        return (whole, True) if came_down is None else (came_down, came_down == whole)

    def down_bits(self, size: ModelSize, *, first: bool) -> int:
        """What comes to a client at the start of its round."""
        once = size.stays if first and (self.first or self.down) else 0
        return FLOAT_BITS * (size.travels * (self.first * first + self.down) + once)

    def up_bits(self, size: ModelSize, *, first: bool, came_up: bool = True) -> int:
        """What goes up from it beside its steps; what it says once of itself when its first models are there."""
        told = size.told if first and (self.first or self.down) else 0
        return FLOAT_BITS * (size.travels * self.up * came_up + told)
