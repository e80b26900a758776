"""From a name to a strategy: one module, one strategy, nothing to register."""

from __future__ import annotations

from typing import Any

from strategies.interface import Strategy


def available() -> list[str]:
    """Names of the strategies in this package."""
    return ["splitfed_v1", "splitfed_v2"]


def build(name: str, **options: Any) -> Strategy:
    """Create a strategy."""
    from importlib import import_module

    module = import_module(f"strategies.{name}")
    [kind] = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Strategy) and v is not Strategy]
    return kind(**options)
