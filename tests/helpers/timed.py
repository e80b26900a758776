"""Small runs in simulated time."""

from __future__ import annotations

from pathlib import Path

import flsplit

SMALL = [
    "clients=3", "rounds=3", "batch_size=8", "dataset.train_limit=96", "dataset.test_limit=40", "partition=iid",
    "compressor=adc", "compressor.ratio=0.3",
]  # fmt: skip
UNLIKE = ["network=lte", "network.uplink_mbps=[0.5,20]", "network.flops=[1e8,1e10]"]
TIME = ["compute_seconds", "transfer_seconds", "waiting_seconds", "joules"]
FEDBUFF = ["strategy=fedbuff", *UNLIKE, "clients=4", "rounds=6"]


def run(*keys: str, out: Path) -> flsplit.Run:
    """Of `SMALL`, in this process."""
    return flsplit.run([*SMALL, "engine=inline", *keys, f"out={out}"])
