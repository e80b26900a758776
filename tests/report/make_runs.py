"""Run folders as flsplit leaves them, with made-up numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf


def config(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "dataset": {"name": "digits", "path": None, "augment": "none"},
        "augment": "none",
        "model": {"name": "vit_micro", "pretrained": False, "split_point": 3},
        "compressor": {"name": "adc", "ratio": 0.1, "rule": "sqrt"},
        "strategy": {"name": "splitfed_v1", "placement": None, "aggregator": "fedavg"},
        "clients": 10,
        "partition": {"name": "dirichlet", "alpha": 0.3, "shards_per_client": 2, "sigma": 1.0, "holdout": 0},
        "rounds": 12,
        "lr": 0.001,
        "seed": 0,
        "out": "somewhere",
    }
    return base | changes


def rounds_table(
    rounds: int, *, ratio: float = 0.1, eval_every: int = 1, seed: int = 0, sync: int = 2_000_000
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    number = np.arange(1, rounds + 1)
    full = 40_000_000
    accuracy = 0.95 - 0.8 * np.exp(-number / 5) - 0.05 * (1 - ratio) + rng.normal(0, 0.01, rounds)
    evaluated = number % eval_every == 0
    return pd.DataFrame(
        {
            "round": number,
            "samples": number * 1400,
            "train_loss": 2.3 * np.exp(-number / 6) + 0.1,
            "test_loss": np.where(evaluated, 2.4 * np.exp(-number / 7) + 0.2, np.nan),
            "test_accuracy": np.where(evaluated, accuracy, np.nan),
            "uplink_bits": (number * full * ratio).astype("int64"),
            "downlink_bits": (number * full * ratio * 0.98).astype("int64"),
            "nominal_bits": (number * full * ratio * 2).astype("int64"),
            "wire_bytes": (number * full * ratio / 4).astype("int64"),
            "sync_bits": number * sync,
            "xi": np.full(rounds, ratio * 1.02),
            "seconds": np.full(rounds, 2.5),
        }
    )


def write_rounds(folder: Path, rounds: pd.DataFrame, evaluated: int) -> None:
    """As flsplit does: accuracies of rounds up to `evaluated` may be NaN; a NaN after it is null."""
    known = (rounds["round"] <= evaluated) | rounds["test_accuracy"].notna()
    columns = {name: pa.array(rounds[name].to_numpy()) for name in rounds}
    columns["test_accuracy"] = pa.array(rounds["test_accuracy"].to_numpy(), mask=~known.to_numpy())
    pq.write_table(pa.table(columns), folder / "rounds.parquet")


def partition_table(clients: int, labels: int, *, alpha: float = 0.3, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    counts = np.stack([rng.multinomial(50 * clients, rng.dirichlet([alpha] * clients)) for _ in range(labels)])
    label, client = np.nonzero(counts)
    return pd.DataFrame({"client": client, "label": label, "count": counts[label, client]})


def clients_table(
    rounds: int, clients: int, *, held_out: bool = False, failed: tuple[tuple[int, int], ...] = ()
) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    number, client = (grid.ravel() for grid in np.meshgrid(range(1, rounds + 1), range(clients), indexing="ij"))
    table = pd.DataFrame(
        {
            "round": number,
            "client": client,
            "samples": 140,
            "train_loss": 1.0,
            "test_accuracy": rng.uniform(0.5, 0.9, len(number)) if held_out else np.nan,
            "uplink_bits": 400_000,
            "downlink_bits": 390_000,
            "sync_bits": 200_000,
            "failed": False,
        }
    )
    for at, who in failed:
        table.loc[(table["round"] == at) & (table["client"] == who), "failed"] = True
    return table


def summary_of(rounds: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    last = rounds.iloc[-1]
    return {
        "status": "completed",
        "rounds": int(last["round"]),
        "samples": int(last["samples"]),
        "final_test_accuracy": float(rounds["test_accuracy"].dropna().iloc[-1]),
        "best_test_accuracy": float(rounds["test_accuracy"].max()),
        "xi": None if last["xi"] is None else float(last["xi"]),
        "uplink_bits": int(last["uplink_bits"]),
        "downlink_bits": int(last["downlink_bits"]),
        "wire_bytes": int(last["wire_bytes"]),
        "sync_bits": int(last["sync_bits"]),
        "seconds": 43.0,
        "samples_per_second": 812.5,
        "peak_rss_mb": 900.0,
        "device": "cpu",
        "seed": 0,
        "versions": {"torch": "2.11"},
    } | changes


def make_run(
    folder: Path,
    settings: dict[str, Any] | None = None,
    *,
    rounds: pd.DataFrame | None = None,
    clients: pd.DataFrame | None = None,
    partition: pd.DataFrame | None = None,
    summary: dict[str, Any] | bool = True,
) -> Path:
    """Write a run folder; `summary=False` leaves it as an interrupted run does."""
    folder.mkdir(parents=True)
    settings = config() if settings is None else settings
    rounds = rounds_table(12) if rounds is None else rounds
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings)), encoding="utf-8")
    rounds.to_parquet(folder / "rounds.parquet")
    (clients_table(2, 10) if clients is None else clients).to_parquet(folder / "clients.parquet")
    (partition_table(10, 10) if partition is None else partition).to_parquet(folder / "partition.parquet")
    if summary is not False:
        told = summary_of(rounds) if summary is True else summary
        (folder / "summary.json").write_text(json.dumps(told), encoding="utf-8")
    return folder
