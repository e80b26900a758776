"""What a run's numbers depend on beside its random streams, so that a resumed run can tell whether it is still so."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from flsplit.assembly import Plan
from flsplit.record.atomic import digest

# What changes no number of the configuration: how long and where a run goes on, names of files whose content counts.
_FREE = (
    "rounds", "engine.name", "engine.address", "engine.gpus_per_client", "engine.graphs", "out", "resume",
    "resume_force", "experiment", "logger", "client_profile", "client_timeout", "dataset.path", "model.pretrained",
)  # fmt: skip
_PACKAGES = ("flsplit", "torch", "timm")
# What would be another experiment, beside `config`; the rest may be other bits of the same numbers.
_REFUSED = {"data": "the data set", "weights": "the file of model.pretrained", "profiles": "client_profile"}


def origin_of(plan: Plan, data: str) -> dict[str, Any]:
    """What the numbers of a run depend on.

    Args:
        plan: of the run.
        data: fingerprint of its data set.

    Returns:
        plain values: `config`, `data`, `weights`, `profiles`, `versions`, `processor`.
    """
    weights = plan.config.model.pretrained
    return {
        "config": dict(_flat(plan.config.as_dict())),
        "data": data,
        "weights": digest(Path(weights).read_bytes()) if isinstance(weights, str) else None,
        "profiles": digest(json.dumps(plan.profiles, sort_keys=True).encode()),
        "versions": {name: _version(name) for name in _PACKAGES},
        "processor": _processor(plan.device),
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is not as it was.

    Returns:
        what makes it another experiment, and what may only change the last bits; a line each.
    """
    refused, warned = [], []
    for key, old, new in _pairs(then, now):
        if old == new:
            continue
        kind, _, name = key.partition(":")
        if kind == "config":
            refused.append(f"{name}={_shown(new)} in its config.yaml, which was {_shown(old)} when it ran")
        elif kind in _REFUSED:
            what = {"data": "the data set", "weights": "the file of model.pretrained", "profiles": "client_profile"}[
                kind
            ]
            refused.append(f"{what} holds something else than when it ran")
        else:
            warned.append(f"{name or kind} was {_shown(old)} and is {_shown(new)}, so the last bits may differ")
    return refused, warned


def _pairs(then: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Key, old and new value, of what both have."""
    for key in then.keys() & now.keys():
        if isinstance(then[key], dict) and isinstance(now[key], dict):
            yield from ((f"{key}:{k}", then[key][k], now[key][k]) for k in sorted(then[key].keys() & now[key].keys()))
        else:
            yield key, then[key], now[key]


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if name in _FREE:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, list(value) if isinstance(value, tuple) else value


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"
