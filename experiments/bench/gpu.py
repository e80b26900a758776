"""`gpu`: `single`, `adc` and `clients` at 224 px in bf16 on a GPU, and what CUDA graphs bring; nothing without one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.bench import adc, clients, single
from experiments.bench.case import Result, compare, measure
from experiments.bench.workload import Workload

ONE = Workload(size=224, steps=100, precision="bf16", device="cuda")
MANY = Workload(size=224, steps=10 * clients.CLIENTS, precision="bf16", device="cuda")
SMALL = Workload(model="vit_micro", size=32, batch=16, steps=400, device="cuda")  # of ten clients
_ADC: dict[str, object] = {"compressor": "adc", "compressor.ratio": adc.RATIO}


def run(*, pairs: int) -> Iterator[Result]:
    """The three cases, each with its own goals; then each kind of client with graphs over without."""
    if not torch.cuda.is_available():
        return
    yield from single.run(pairs=pairs, workload=ONE, case="gpu")
    yield from adc.run(pairs=pairs, workload=ONE, case="gpu")
    yield from graphs(ONE, {}, "base", pairs=pairs)
    yield from graphs(ONE, _ADC, "ADC", pairs=pairs)
    yield from graphs(SMALL, {"clients": 10}, "ten small clients", pairs=pairs)
    yield from clients.run(pairs=pairs, workload=MANY, case="gpu")


def graphs(workload: Workload, more: dict[str, object], who: str, *, pairs: int, case: str = "gpu") -> Iterator[Result]:
    """What CUDA graphs bring: samples/s over those without, samples/s, and launches a step with and without.

    Args:
        workload: what is trained on.
        more: overrides.
        who: trains, in a few words.
        pairs: see `case.measure`.
        case: the name of the rows.
    """
    with workload.made() as made:
        yield compare(
            case, f"samples/s of {who} with CUDA graphs over without", lambda: made.run(**more),
            lambda: made.run(engine__graphs="false", **more), pairs=pairs, goal=None, at_least=True, note=str(made),
        )  # fmt: skip
        yield measure(
            case, f"samples/s of {who}", lambda: made.run(**more), pairs=pairs, goal=None, at_least=True,
            note=str(made),
        )  # fmt: skip
    for on, word in (("true", "with"), ("false", "without")):
        yield measure(
            case, f"launches a step of {who}, {word} CUDA graphs",
            partial(launches, workload, engine__graphs=on, **more), pairs=1, goal=None, at_least=False,
            note=workload.words,
        )  # fmt: skip


def launches(workload: Workload, **more: object) -> float:
    """What the host tells the GPU to start in a step, batches and account included: kernels, graphs, copies."""
    counts = []
    for steps in _STEPS:
        with replace(workload, steps=steps).made() as made, profile(activities=list(_ACTIVITIES)) as seen:
            made.run(**more)
        counts.append(sum(event.count for event in seen.key_averages() if event.key.startswith(_LAUNCHES)))
    return (counts[0] - counts[1]) / (_STEPS[0] - _STEPS[1])


_STEPS = 200, 100  # of two runs, whose difference is steps alone
_ACTIVITIES = (ProfilerActivity.CPU, ProfilerActivity.CUDA)
_LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")
