"""`link`: what a quantiser and a channel take of a training step's time.

One client without compression, whose messages are the largest: every activation is quantised or disturbed, and so is
every gradient. The time is taken around the stages within the run, because a ratio of two runs is lost in what a shared
machine does between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

from experiments.bench.case import Result, measure
from experiments.bench.workload import Workload
from flsplit.split.stages import Stages

CPU = Workload(steps=8)
LINKS: dict[str, tuple[dict[str, object], float]] = {
    "quantizer=uniform bits=8": ({"quantizer": "uniform"}, 5),
    "channel=awgn": ({"channel": "awgn"}, 3),
}


def run(*, pairs: int, workload: Workload = CPU, case: str = "link") -> Iterator[Result]:
    """Percent of the time of a step that stages take, both ways."""
    with workload.made() as made:
        for name, (keys, goal) in LINKS.items():
            yield measure(
                case, f"% of a step (one client, base, inline) that {name} takes", partial(share, made, keys),
                pairs=pairs, goal=goal, at_least=False, note=str(made),
            )  # fmt: skip


def share(workload: Workload, keys: dict[str, object]) -> float:
    """Percent of a run's training time that is spent in its stages."""
    spent = [0.0]

    def timed(half: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(half)
        def wrapped(*args: Any) -> Any:
            workload.wait()
            began = time.perf_counter()
            found = half(*args)
            workload.wait()
            spent[0] += time.perf_counter() - began
            return found

        return wrapped

    with patch.object(Stages, "_sent", timed(Stages._sent)), patch.object(Stages, "_arrived", timed(Stages._arrived)):
        rate = workload.run(**keys)
    return 100 * spent[0] * rate / (workload.batch * workload.steps)
