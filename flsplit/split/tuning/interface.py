"""What every way to train a side is: it marks parameters, and may put further modules into the model."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def head_of(model: nn.Module) -> nn.Module | None:
    """The classifier of a server side; None of a client side, which has none."""
    head: nn.Module | None = getattr(model, "head", None)
    return head


def only(model: nn.Module, trained: Callable[[str, nn.Parameter], bool], otherwise: str) -> None:
    """Have these parameters trained, the head too, and no others.

    Args:
        model: a client-side or server-side model.
        trained: whether a parameter of this name is.
        otherwise: what is wrong if none is.

    Raises:
        ValueError: if there is none.
    """
    found = [parameter for name, parameter in model.named_parameters() if trained(name, parameter)]
    if not found:
        raise ValueError(f"model.tune={otherwise} in this side")
    model.requires_grad_(False)
    for parameter in [*found, *(head.parameters() if (head := head_of(model)) is not None else ())]:
        parameter.requires_grad_(True)


_TUNINGS: Plugins[Tuning] = Plugins(
    "model.tune", "flsplit.split.tuning", Tuning,  # type: ignore[type-abstract]
    helpers=("interface",), options="model.tune_args",
)  # fmt: skip
available = _TUNINGS.available


@contextmanager
def keys_of(side: str) -> Iterator[None]:
    """Around what is done with the tuning of a side, `client` or `server`: a complaint names the keys of that side.

    Raises:
        ValueError: as was raised, of the server side with `model.tune_server` in the place of `model.tune`.
    """
    try:
        yield
    except ValueError as error:
        if side == "client":
            raise
        raise ValueError(re.sub(r"\bmodel\.tune(_args)?\b", r"model.tune_server\1", str(error))) from error


def build(name: str, **options: Any) -> Tuning:
    """Create a way to train a side.

    Args:
        name: one of this package ("all"), or the dotted path of any importable module that defines one `Tuning`.
        options: the keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or option, or a value that cannot be; one line each.
    """
    return _TUNINGS.build(name, options)
