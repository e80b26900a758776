"""What every way to train a side is: it marks parameters, and may put further modules into the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from compressors.plugins import Plugins


class Tuning(ABC):
    """What one side trains; keyword-only options with plain types, one class to a module."""

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Change `model`, a client-side or server-side model, in place.

        A parameter is trained if it requires a gradient. What is trained travels, is averaged, checkpointed and
        priced; all else has the same values at every client for ever. Random numbers come from torch's global
        generator, which is keyed by the run's seed here.

        Raises:
            ValueError: in one line that names the option, if it cannot be applied to this model.
        """


_TUNINGS: Plugins[Tuning] = Plugins(
    "model.tune", "flsplit.split.tuning", Tuning, helpers=("interface",),  # type: ignore[type-abstract]
)  # fmt: skip
available = _TUNINGS.available


def build(name: str, **options: Any) -> Tuning:
    """Create a way to train a side.

    Args:
        name: one of this package ("all"), or the dotted path of any importable module that defines one `Tuning`.
        options: the keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or option, or a value that cannot be; one line each.
    """
    return _TUNINGS.build(name, options)
