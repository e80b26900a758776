"""`loggers`: what a run waits for its loggers, where they are shown every round.

A run shows them what has been saved, at most once a second; rounds here take about that, and all are saved. The time is
taken around the calls within the run. What writes aside, W&B's own process and MLflow's own thread, is not in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import chdir
from functools import partial
from unittest.mock import patch

from experiments.bench.case import Result, measure
from experiments.bench.watch import watched
from experiments.bench.workload import Workload
from flsplit.record.loggers import LOGGERS, Loggers
from flsplit.server import saving

CPU = Workload(batch=16, steps=5)
ROUNDS = 15


def run(*, pairs: int, workload: Workload = CPU) -> Iterator[Result]:
    """Percent of the time of steps that each logger takes."""
    here = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    with workload.made() as made, chdir(made.folder), patch.dict(os.environ, here):  # MLflow writes where one is
        for name in LOGGERS:
            yield measure(
                "loggers", f"% of steps (one client, base, inline) that logger={name} takes, rounds of about a second",
                partial(share, made, name), pairs=pairs, goal=1, at_least=False, note=str(made),
            )  # fmt: skip


def share(workload: Workload, name: str) -> float:
    """Percent of a run's training time in which a logger is shown rounds, but for the first time, when it opens files.

    Raises:
        RuntimeError: if it has failed, and was left out.
    """
    kept, close = list[str](), Loggers.close

    def closing(loggers: Loggers) -> None:
        kept.extend(loggers.names)
        close(loggers)

    with (
        watched((Loggers, "log"), wait=workload.wait) as spent, patch.object(Loggers, "close", closing),
        patch.object(saving, "SAVE_EVERY", 0),
    ):  # fmt: skip
        rate = workload.run(logger=name, rounds=ROUNDS, eval_every=ROUNDS)
    if kept != [name]:
        raise RuntimeError(f"logger={name} has failed; a run with it says why")
    return 100 * sum(spent[1:]) * rate / (workload.batch * workload.steps * ROUNDS)
