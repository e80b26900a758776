"""From a name to a compressor: one module, one method, nothing to register."""

import inspect
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from compressors.interface import Compressor
from compressors.options import check_signature, nearest

_PACKAGE = "compressors"
_HELPERS = {"interface", "kmeans", "options", "registry"}


def available() -> list[str]:
    """Short names of the methods in this package: its modules, but for the shared parts."""
    names = {module.name for module in iter_modules([str(Path(__file__).parent)])}
    return sorted(names - _HELPERS)


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
    kind = _only_compressor(_module(name))
    check_signature(kind.name, kind.__init__, options)
    return kind(**options)


def _module(name: str) -> ModuleType:
    short = available()
    if name in short:
        return import_module(f"{_PACKAGE}.{name}")
    if "." not in name:
        raise ValueError(
            f"compressor must be one of {', '.join(short)}, or the dotted path of a module, "
            f"got {name!r}{nearest(name, short)}"
        )
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        raise ValueError(
            f"compressor must name a module that can be imported, got {name!r}: no module {error.name!r}"
        ) from None


def _only_compressor(module: ModuleType) -> type[Compressor]:
    found = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Compressor) and kind.__module__ == module.__name__
    ]
    concrete = [kind for kind in found if not inspect.isabstract(kind)]
    if len(concrete) != 1:
        names = ", ".join(kind.__name__ for kind in concrete) or "none"
        raise ValueError(f"compressor module {module.__name__} must define one Compressor, found {names}")
    return concrete[0]
