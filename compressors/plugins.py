"""From a name to an object: one module, one class, nothing to register."""

import inspect
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Generic, TypeVar

from compressors.options import check_signature, nearest

T = TypeVar("T")
_FOLDER = "; a module of your own lies in a folder: put {0}.py into one, such as mine, and give mine.{0}"


class Plugins(Generic[T]):
    """The classes of a package, one to a module, and of any other module that is given by its dotted path.

    Args:
        group: the key under which users choose one, for messages.
        package: where the short names are looked up.
        base: what the classes derive from.
        helpers: modules of the package that hold none.
        options: the key under which users set options, for messages; None for the group.
    """

    def __init__(
        self, group: str, package: str, base: type[T], helpers: Iterable[str] = (), options: str | None = None
    ) -> None:
        self._options = options or group
        self._group, self._package, self._base, self._helpers = group, package, base, frozenset(helpers)

    def available(self) -> list[str]:
        """Short names: the package's modules, but for the helpers."""
        names = {module.name for module in iter_modules(import_module(self._package).__path__)}
        return sorted(names - self._helpers)

    def build(self, name: str, options: dict[str, Any]) -> T:
        """Create the object.

        Raises:
            ValueError: for an unknown name or option, or a value that cannot be; one line each.
            ImportError: if the module is there and raises anything while it is imported.
        """
        kind = self._only_class(self._module(name))
        check_signature(self._options, name.rpartition(".")[2], kind, options)
        return kind(**options)

    def _module(self, name: str) -> ModuleType:
        short = self.available()
        if name in short:
            return import_module(f"{self._package}.{name}")
        if "." not in name or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(
                f"{self._group} must be one of {', '.join(short)}, or the dotted path of a module, "
                f"got {name!r}{_foldered(name) or nearest(name, short)}"
            )
        try:
            return import_module(name)
        except Exception as error:  # while it is imported it knows of no options: none of them is wrong
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and f"{name}.".startswith(f"{missing}."):
                raise ValueError(
                    f"{self._group} must name a module that can be imported, got {name!r}: no module {missing!r}"
                    f"{_meant(name)}"
                ) from None
            kind = type(error).__name__
            raise ImportError(f"{self._group}: {name} cannot be imported: {kind}: {error}") from error

    def _only_class(self, module: ModuleType) -> type[T]:
        found = [
            kind
            for kind in vars(module).values()
            if inspect.isclass(kind) and issubclass(kind, self._base) and kind.__module__ == module.__name__
        ]
        concrete = [kind for kind in found if not inspect.isabstract(kind)]
        if len(concrete) != 1:
            names = ", ".join(kind.__name__ for kind in concrete) or "none"
            raise ValueError(
                f"{self._group} module {module.__name__} must define one {self._base.__name__}, found {names}"
            )
        return concrete[0]


def _foldered(name: str) -> str:
    """What to do with a name without a dot that is a file in the current folder."""
    return _FOLDER.format(name) if name.isidentifier() and Path(f"{name}.py").is_file() else ""


def _meant(name: str) -> str:
    """What is meant by the dotted path of a class, or of a module that is called nearly so."""
    module, _, kind = name.rpartition(".")
    found = sys.modules.get(module)
    if found is None or not inspect.isclass(getattr(found, kind, None)):
        return nearest(name, [f"{module}.{each.name}" for each in iter_modules(getattr(found, "__path__", []))])
    return f"; give the module of the class, {module}" if "." in module else _FOLDER.format(module)
