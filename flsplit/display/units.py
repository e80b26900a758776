"""Numbers as people read them: bits, bytes, seconds, fractions."""

from __future__ import annotations

import math
from typing import Any

NOTHING = "-"
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def _scaled(amount: float, unit: str) -> str:
    size = float(amount)
    for prefix in _PREFIXES[:-1]:
        # 999.96 would be printed as 1000.0: it belongs to the next prefix.
        if round(size, 1) < 1000:
            return f"{size:.1f} {prefix}{unit}" if prefix else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} {_PREFIXES[-1]}{unit}"


def human_bits(bits: int) -> str:
    """`bits` with a decimal prefix: ``human_bits(12_345_678) == "12.3 Mb"`` (1 Mb is 1e6 bits)."""
    return _scaled(bits, "b")


def human_bytes(count: int) -> str:
    """`count` bytes with a decimal prefix: ``human_bytes(1_500_000) == "1.5 MB"``."""
    return _scaled(count, "B")


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any: ``0:43``, ``1:02:03``."""
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def missing(value: Any) -> bool:
    """Whether a table or summary has no number here: None, NaN, or pandas' NA."""
    if value is None:
        return True
    try:
        return math.isnan(value)
    except TypeError:  # pandas' NA, or not a number at all
        return not isinstance(value, str | bool)


def percent(fraction: Any) -> str:
    """A fraction in 0..1 as ``56.7%``; a dash where there is none."""
    return NOTHING if missing(fraction) else f"{100 * fraction:.1f}%"
