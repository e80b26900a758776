"""From plain nested values (YAML, JSON) to frozen dataclasses, with every type checked by name."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from flsplit.errors import UserError, nearest, shown

T = TypeVar("T")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


def read(kind: type[T], values: Mapping[str, Any], *, at: str = "") -> T:
    """Build the dataclass `kind` from `values`.

    Args:
        kind: a dataclass; its fields are plain types, unions, lists, dictionaries or further dataclasses.
        values: what was given, by field.
        at: prefix of the keys in messages, such as `dataset.`.

    Raises:
        UserError: unknown or missing key, or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"unknown key {at}{key}{nearest(key, known)}")
    arguments = {}
    for name, field in known.items():
        if name in values:
            arguments[name] = _value(hints[name], values[name], f"{at}{name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{at}{name} is missing")
    return kind(**arguments)


def _word(kind: Any) -> str:
    return "a list such as [a,b]" if get_origin(kind) is list else _WORDS.get(kind, "a group of keys")


def _value(hint: Any, value: Any, key: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is a group of keys, got {shown(value)}")
        return read(hint, value, at=f"{key}.")
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in choices:
        return None
    for choice in choices:
        if get_origin(choice) in (dict, Mapping) or choice is dict:
            if isinstance(value, Mapping):
                return dict(value)
        elif get_origin(choice) is list:
            [kind] = get_args(choice)
            if kind is float and isinstance(value, list) and all(type(item) in (int, float) for item in value):
                return [float(item) for item in value]
            if isinstance(value, list) and all(isinstance(item, kind) for item in value):
                return list(value)
        elif choice is bool or isinstance(value, bool):
            if choice is bool and isinstance(value, bool):
                return value
        elif choice is float and isinstance(value, int | float):
            return float(value)
        elif choice is not type(None) and isinstance(value, choice):
            return value
    if float in choices and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            pass
    wanted = " or ".join(_word(c) for c in choices).replace("true or false or", "true, false or")
    if str in choices and isinstance(value, int | float) and not isinstance(value, bool) and bool not in choices:
        wanted += f" (a number in quotes is text: '{key}=\"{value}\"')"
    raise UserError(f"{key} must be {wanted}, got {shown(value)}")
