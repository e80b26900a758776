"""The compressors by name."""

from typing import Any

from compressors.interface import Compressor
from compressors.plugins import Plugins

_COMPRESSORS: Plugins[Compressor] = Plugins(
    "compressor", "compressors", Compressor,  # type: ignore[type-abstract]
    helpers=("interface", "kmeans", "options", "plugins", "registry")
)  # fmt: skip
available = _COMPRESSORS.available


def build(name: str, **options: Any) -> Compressor:
    """Create a compressor.

    Args:
        name: a method of this package ("adc"), or the dotted path of any importable module that defines one
            `Compressor` ("my_package.my_method").
        options: the keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or option, or a value that cannot be; one line each.

    Example:
        >>> build("topk", rate=0.05).name
        'topk'
    """
    return _COMPRESSORS.build(name, options)
