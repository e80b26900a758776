"""`single`: one client without compression, over a plain PyTorch loop on the same model, data and transform."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image

import flsplit
from experiments.bench.case import Result, compare
from flsplit import data
from flsplit.compose import compose

SIZE, BATCH, STEPS, CLASSES = 96, 128, 3, 100
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def run(*, pairs: int) -> Iterator[Result]:
    """Samples per second, ours over the plain loop's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise(folder / "data", train=BATCH * STEPS, test=10)
        runs = iter(range(1000))

        def ours() -> float:
            keys = [
                "engine=inline", "dataset=cifar100", f"dataset.path={folder / 'data'}", "model=deit_tiny",
                "model.pretrained=false", f"model.image_size={SIZE}", "clients=1", "partition=iid", "rounds=1",
                f"batch_size={BATCH}", "compressor=base", f"out={folder / str(next(runs))}",
                f"engine.cpus_per_client={torch.get_num_threads()}",
            ]  # fmt: skip
            return flsplit.run(keys).summary["samples_per_second"]

        yield compare(
            "single", "samples/s of one client (base, inline) over a plain PyTorch loop", ours,
            lambda: plain_loop(folder / "data"), pairs=pairs, goal=0.98, at_least=True,
            note=f"DeiT-T {SIZE} px, B={BATCH}, {STEPS} steps, {torch.get_num_threads()} threads",
        )  # fmt: skip


def plain_loop(path: Path) -> float:
    """Samples per second of the uncut model, an optimizer and a loop; the batches are the platform's."""
    table = data.load(compose(["dataset=cifar100", f"dataset.path={path}"]).dataset, seed=0).train
    pipeline = data.Pipeline(
        image_size=SIZE, augment="paper", mean=MEAN, std=STD, device=torch.device("cpu"), seed=0
    )  # fmt: skip
    model = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, img_size=SIZE).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    samples = 0
    began = time.perf_counter()
    for images, labels in pipeline.train_batches(table, np.arange(len(table)), client=0, round=1, batch_size=BATCH):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        samples += len(labels)
    return samples / (time.perf_counter() - began)


def noise(folder: Path, *, train: int, test: int) -> None:
    """Write a dataset of random 32 px images in CIFAR-100's columns, so that nothing need be downloaded."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, count in (("train", train), ("test", test)):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        frame = pd.DataFrame({
            "img": [{"bytes": _png(image), "path": None} for image in images],
            "fine_label": np.arange(count) % CLASSES,
            "coarse_label": np.arange(count) % 20,
        })  # fmt: skip
        frame.to_parquet(folder / f"{name}-00000-of-00001.parquet")


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()
