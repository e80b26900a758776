"""`link`: what a quantiser, a channel and the simulated clock take of training's time.

One client without compression, whose messages are the largest: every activation is quantised or disturbed, and so is
every gradient. The time is taken around the stages within the run, because a ratio of two runs is lost in what a shared
machine does between them. The clock's is that of a round after the first: in that one it counts operations, once in a
run (about 0.6 s for DeiT-T).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from experiments.bench.case import Result, measure
from experiments.bench.watch import watched
from experiments.bench.workload import Workload
from flsplit.server.timekeeper import Timekeeper
from flsplit.split.passage import Passage

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
        yield measure(
            case, "% of a round (one client, base, inline) that network=lte takes", partial(clock_share, made),
            pairs=pairs, goal=1, at_least=False, note=str(made),
        )  # fmt: skip


def share(workload: Workload, keys: dict[str, object]) -> float:
    """Percent of a run's training time that is spent in its stages."""
    with watched((Passage, "send"), (Passage, "receive"), wait=workload.wait) as spent:
        rate = workload.run(**keys)
    return 100 * sum(spent) * rate / (workload.batch * workload.steps)


def clock_share(workload: Workload, rounds: int = 3) -> float:
    """Percent of a round's training time in which simulated time is told."""
    with watched((Timekeeper, "of"), wait=workload.wait) as spent:
        rate = workload.run(network="lte", rounds=rounds, eval_every=rounds)
    return 100 * sum(spent[1:]) / (rounds - 1) * rate / (workload.batch * workload.steps)
