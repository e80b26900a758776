"""Checks of a compressor's options; every complaint is one line that names the option."""

import inspect
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", NoneType: "null"}


def fraction(option: str, value: float, *, zero: bool = False, one: bool = True) -> float:
    """Return `value` if it lies between 0 and 1; `zero` and `one` say which ends belong to the range.

    Raises:
        ValueError: otherwise.
    """
    if 0 < value < 1 or (zero and value == 0) or (one and value == 1):
        return value
    bounds = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    raise ValueError(f"compressor.{option} must be in {bounds}, got {value}")


def choice(option: str, value: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: otherwise.
    """
    if value in choices:
        return value
    raise ValueError(f"compressor.{option} must be one of {', '.join(choices)}, got {value!r}")


def nearest(word: str, words: Collection[str]) -> str:
    """A hint at the right word, to end a message with; empty if nothing comes close."""
    close = get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_signature(name: str, init: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Hold `options` against the keyword arguments that `init` declares.

    Args:
        name: of the compressor, for the message.
        init: its `__init__`.
        options: what the user gave. A whole number passes for a float; a bool passes for a bool only.

    Raises:
        ValueError: for an unknown or missing option, or a value of the wrong type.
    """
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(init).parameters.items()
        if key != "self" and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    kinds = get_type_hints(init)
    for key, value in options.items():
        if key not in parameters:
            raise ValueError(
                f"compressor.{key} is not an option of {name}{nearest(key, parameters)}; "
                f"its options are {', '.join(parameters)}"
            )
        allowed = _alternatives(kinds.get(key, Any))
        if not any(_fits(kind, value) for kind in allowed):
            wanted = " or ".join(_WORDS[kind] for kind in allowed)
            raise ValueError(f"compressor.{key} must be {wanted}, got {value!r}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise ValueError(f"compressor.{key} must be given, {name} has no default for it")


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _fits(kind: Any, value: object) -> bool:
    """Whether the value has the plain type `kind`; other types are the compressor's own business."""
    if kind not in _WORDS:
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
