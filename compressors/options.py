"""Checks of options; every complaint is one line that names the option."""

import inspect
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", NoneType: "null"}


def fraction(option: str, value: float, *, zero: bool = False, one: bool = True, group: str = "compressor") -> float:
    """Return `value` if it lies between 0 and 1; `zero` and `one` say which ends belong to the range.

    Raises:
        ValueError: otherwise.
    """
    if 0 < value < 1 or (zero and value == 0) or (one and value == 1):
        return value
    bounds = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    raise ValueError(f"{group}.{option} must be in {bounds}, got {value}")


def choice(option: str, value: str, choices: Collection[str], *, group: str = "compressor") -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: otherwise.
    """
    if value in choices:
        return value
    raise ValueError(f"{group}.{option} must be one of {', '.join(choices)}, got {value!r}")


def nearest(word: str, words: Collection[str]) -> str:
    """A hint at the right word, to end a message with; empty if nothing comes close."""
    close = get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_signature(group: str, name: str, kind: type, options: Mapping[str, Any]) -> None:
    """Hold `options` against the keyword arguments that a class and, through `**options`, its bases declare.

    Args:
        group: the key under which options are set, for the message.
        name: of the choice in it, for the message.
        kind: the class.
        options: what the user gave. A whole number passes for a float; a bool passes for a bool only.

    Raises:
        ValueError: for an unknown or missing option, or a value of the wrong type.
    """
    parameters, hints = _keywords(kind)
    for key, value in options.items():
        if key not in parameters:
            has = f"its options are {', '.join(parameters)}" if parameters else "it has none"
            raise ValueError(f"{group}.{key} is not an option of {name}{nearest(key, parameters)}; {has}")
        allowed = _alternatives(hints.get(key, Any))
        if not any(_fits(hint, value) for hint in allowed):
            wanted = " or ".join(_WORDS[hint] for hint in allowed)
            raise ValueError(f"{group}.{key} must be {wanted}, got {_typed(value)}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise ValueError(f"{group}.{key} must be given, {name} has no default for it")


def _typed(value: object) -> str:
    """A value as users write it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _keywords(kind: type) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Keyword arguments of a class and their types; those of its bases too, as long as `**options` hands them on."""
    found: dict[str, inspect.Parameter] = {}
    hints: dict[str, Any] = {}
    for base in kind.__mro__:
        init = vars(base).get("__init__")
        if init is None or base is object:
            continue
        parameters = inspect.signature(init).parameters.values()
        named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "self"]
        found = {**found, **{p.name: p for p in named if p.name not in found}}
        hints = {**get_type_hints(init), **hints}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found, hints


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _fits(kind: Any, value: object) -> bool:
    """Whether the value has the plain type `kind`; other types are the compressor's own business."""
    if kind not in _WORDS:
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
