"""`summary.json`: a run in a few numbers, and what it was run with."""

from __future__ import annotations

import json
import math
import platform
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from flsplit.assembly import Plan
from flsplit.config.schema import Config
from flsplit.data import Dataset
from flsplit.data.skew import skew
from flsplit.record import atomic
from flsplit.record.tables import Recorder, Row, test_column
from flsplit.server.app import Server
from flsplit.server.strategy import build


def finish(
    plan: Plan, origin: Mapping[str, Any], metrics: Mapping[str, bool], out: Path, server: Server, recorder: Recorder,
    status: str,
) -> Row:  # fmt: skip
    """Write the summary of a run.

    Args:
        plan: of the run.
        origin: what its numbers depend on, see `flsplit.server.origin`.
        metrics: columns of its evaluations, and whether higher is better in each.
        out: its folder.
        server: when it has ended.
        recorder: with the rows of all rounds.
        status: `completed`, `budget` or `failed`.
    """
    totals, tally, rounds = server.totals, server.totals.tally, recorder.rounds
    accuracies = [a for row in rounds if (a := row["test_accuracy"]) is not None and math.isfinite(a)]
    final = {f"final_{test_column(name)}": _last(rounds, test_column(name)) for name in metrics}
    own = {
        f"own_{test_column(name)}": spread(
            [score.metrics[name] for score in server.own.values()], higher_is_better=higher
        )
        for name, higher in metrics.items()
    }
    timed = bool(rounds) and plan.config.network_config is not None
    summary = {
        "status": status,
        "rounds": len(rounds),
        "samples": tally.samples,
        "final_test_accuracy": final.pop("final_test_accuracy"),
        "best_test_accuracy": max(accuracies, default=None),
        "own_test_accuracy": own.pop("own_test_accuracy"),
        **final,
        **own,
        "xi": tally.xi,
        "uplink_bits": tally.uplink_bits,
        "downlink_bits": tally.downlink_bits,
        "wire_bytes": tally.wire_bytes,
        "sync_bits": totals.sync_bits,
        "retransmitted_bits": tally.retransmitted_bits,
        **({"simulated_seconds": rounds[-1]["simulated_seconds"], "joules": totals.joules} if timed else {}),
        "seconds": totals.seconds,
        "samples_per_second": tally.samples / totals.training_seconds if totals.training_seconds else None,
        "peak_rss_mb": peak_megabytes(),
        **({"peak_gpu_mb": torch.cuda.max_memory_allocated() / 1e6} if plan.device == "cuda" else {}),
        **({"graphs": plan.config.engine.graphs} if plan.device == "cuda" else {}),
        "skew": skew(pd.read_parquet(out / "partition.parquet")).figures,
        "classes": list(Dataset.open(Path(plan.data)).classes),
        "data": origin["data"],
        "weights": origin["weights"],
        "device": _device_name(plan.device),
        "seed": plan.config.seed,
        "repeatable": build(**plan.config.strategy).repeatable,
        "versions": _versions(),
        **({"notes": server.notes} if server.notes else {}),
    }
    summary = _plain(summary)
    atomic.write(out / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary


def _plain(value: Any) -> Any:
    """A value as JSON has it: null for what is no finite number."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def numbers(config: Config, metrics: Iterable[str]) -> list[str]:
    """What a summary has that is a number and says how a run went.

    Args:
        config: of the run.
        metrics: columns of its evaluations.
    """
    final = dict.fromkeys(["final_test_accuracy", "best_test_accuracy", *(f"final_{test_column(m)}" for m in metrics)])
    timed = ["simulated_seconds", "joules"] if config.network_config is not None else []
    bits = ["xi", "uplink_bits", "downlink_bits", "wire_bytes", "sync_bits", "retransmitted_bits"]
    return [*final, *bits, *timed, "rounds", "samples", "seconds", "samples_per_second"]


def _last(rounds: Sequence[Row], name: str) -> float | None:
    """The last number in a column; JSON has no NaN."""
    found = [row[name] for row in rounds if row.get(name) is not None]
    return None if not found or math.isnan(found[-1]) else found[-1]


def peak_megabytes() -> float:
    """Peak resident memory of this process, MB (1e6 bytes)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    # `ru_maxrss` would not do: a process inherits it from the one that has started it.
    lines = status.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1e6


def spread(values: Sequence[float], *, higher_is_better: bool = True) -> dict[str, float] | None:
    """How well clients fare on their own held-out parts.

    Args:
        values: of a metric, one for each client; NaN counts for none.
        higher_is_better: of the metric.

    Returns:
        `mean`; `worst_decile`: the mean of the worst tenth of the clients, at least one; `spread`: the standard
        deviation over clients. None where there are no values.
    """
    there = np.array(values, float)
    worst_first = np.sort(there[~np.isnan(there)])[:: 1 if higher_is_better else -1]
    if not len(worst_first):
        return None
    worst = worst_first[: max(1, len(worst_first) // 10)]
    return {"mean": float(worst_first.mean()), "worst_decile": float(worst.mean()), "spread": float(worst_first.std())}


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu ({platform.machine()})"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("flsplit", "torch", "timm", "flwr", "ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
