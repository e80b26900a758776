"""The strategies by name."""

from typing import Any

from compressors.plugins import Plugins
from strategies.interface import Strategy

_STRATEGIES: Plugins[Strategy] = Plugins(
    "strategy",
    "strategies",
    Strategy,  # type: ignore[type-abstract]
    helpers=("interface", "registry"),
)
available = _STRATEGIES.available


def build(name: str, **options: Any) -> Strategy:
    """Create a strategy.

    Args:
        name: one of this package ("splitfed_v1"), or the dotted path of any importable module that defines one
            `Strategy`.
        options: the keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or option, or a value that cannot be; one line each.
    """
    return _STRATEGIES.build(name, options)
