"""`pipeline`: images that the data pipeline alone makes in a second, over those that training alone would need.

Training's need is the speed of a plain PyTorch loop that takes the same batch again and again. Small images (32 px,
one table, augmented as tensors) and photographs (JPEG files of 512 x 384 pixels, decoded and augmented by workers).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from experiments.bench import single
from experiments.bench.case import Result, compare
from experiments.bench.images import PHOTO, photographs
from experiments.bench.workload import Workload

CPU, CPU_PHOTOS = Workload(steps=8), Workload(size=224, batch=32, steps=8)
GPU = Workload(size=224, steps=100, precision="bf16", device="cuda")
GOALS = {"cpu": 2.0, "cuda": 1.3}
PHOTOS = 128  # different ones, each taken again and again


def run(*, pairs: int) -> Iterator[Result]:
    """Small images and photographs, on the CPU and, where there is one, on a GPU."""
    gpu = torch.cuda.is_available()
    for workload in [CPU, GPU] if gpu else [CPU]:
        yield one(workload, photos=False, pairs=pairs)
    for workload in [CPU_PHOTOS, GPU] if gpu else [CPU_PHOTOS]:
        yield one(workload, photos=True, pairs=pairs)


def one(workload: Workload, *, photos: bool, pairs: int) -> Result:
    """Images per second of the pipeline over those of training."""
    kind = f"JPEG photographs of {PHOTO[0]} x {PHOTO[1]}" if photos else f"images of {workload.pixels} px in a table"
    with workload.made() as made:
        if photos:
            photographs(made.folder / "photos", PHOTOS)
        return compare(
            "pipeline", f"images/s of the pipeline alone over training's need, {kind}",
            lambda: pipeline_alone(made, photos=photos), lambda: training_alone(made), pairs=pairs,
            goal=GOALS[made.device], at_least=True, note=str(made),
        )  # fmt: skip


def pipeline_alone(workload: Workload, *, photos: bool) -> float:
    """Images per second of batches that no one uses; workers, where there are any, run since the pair that warms up."""
    folder = workload.folder / "photos"
    batches = workload.batches(["dataset=folder", f"dataset.path={folder}"] if photos else None)
    workload.wait()
    began = time.perf_counter()
    images = sum(len(batch) for batch, _ in batches)
    workload.wait()
    return images / (time.perf_counter() - began)


def training_alone(workload: Workload) -> float:
    """Images per second of a plain loop on one batch, the first step apart."""
    step, generator = single.plain_step(workload), torch.Generator().manual_seed(0)
    images = torch.randn(workload.batch, 3, workload.size, workload.size, generator=generator).to(workload.device)
    labels = torch.arange(workload.batch, device=workload.device) % workload.classes
    step(images, labels)
    workload.wait()
    steps = max(1, workload.steps // 4)
    began = time.perf_counter()
    for _ in range(steps):
        step(images, labels)
    workload.wait()
    return steps * workload.batch / (time.perf_counter() - began)
