"""What both sides of a comparison train on: random images, the platform's batches of them, and one model."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import flsplit
from experiments.bench.images import CLASSES, noise
from flsplit import data
from flsplit.compose import compose
from flsplit.data.pipeline import Pipeline
from flsplit.split.model import build
from flsplit.split.precision import autocast

LR = 1e-4
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model, a batch size and a number of steps; by default those of the paper at 96 px, on the CPU.

    Attributes:
        model: as on flsplit's command line; the weights are the random ones of `seed=0`.
        size: side of the model's input, pixels.
        pixels: side of the images in the data, pixels.
        batch: B, samples per step.
        steps: B * steps samples are in the training data.
        precision: `fp32` or `bf16`.
        device: `cpu` or `cuda`.
        folder: where `made` has put the data; runs go beside it.
    """

    model: str = "deit_tiny"
    size: int = 96
    pixels: int = 32
    batch: int = 128
    steps: int = 3
    precision: str = "fp32"
    device: str = "cpu"
    folder: Path = Path()

    @property
    def classes(self) -> int:
        """L, the number of labels that occur."""
        return min(CLASSES, self.batch * self.steps)

    @property
    def words(self) -> str:
        """Model, sizes and numbers in a few words."""
        return f"{self.model} {self.size} px, B={self.batch}, {self.precision}, {self.device}"

    def __str__(self) -> str:
        threads = f", {torch.get_num_threads()} threads" if self.device == "cpu" else ""
        return f"{self.words}{threads}, {self.steps} steps"

    @contextmanager
    def made(self) -> Iterator[Workload]:
        """The same with its data written, in a temporary folder that holds the tables made of them as well."""
        before = os.environ.get("FLSPLIT_CACHE")
        with tempfile.TemporaryDirectory() as name:
            os.environ["FLSPLIT_CACHE"] = f"{name}/cache"
            try:
                noise(Path(name) / "data", train=self.batch * self.steps, test=10, pixels=self.pixels)
                yield replace(self, folder=Path(name))
            finally:
                os.environ.pop("FLSPLIT_CACHE")
                if before is not None:
                    os.environ["FLSPLIT_CACHE"] = before

    def keys(self, **more: object) -> list[str]:
        """flsplit's overrides: one client in this process without compression, unless `more` says otherwise.

        It gets the torch threads of this process; `engine` may be both a group and a prefix (`engine__KEY=VALUE`).
        """
        keys = {
            "dataset": "cifar100", "dataset.path": self.folder / "data", "model": self.model,
            "model.pretrained": "false", "model.image_size": self.size, "clients": 1, "partition": "iid", "rounds": 1,
            "batch_size": self.batch, "lr": LR, "precision": self.precision, "device": self.device,
            "compressor": "base", "engine": "inline", "engine.cpus_per_client": torch.get_num_threads(),
            "out": tempfile.mkdtemp(dir=self.folder) + "/run",
            **{key.replace("__", "."): value for key, value in more.items()},
        }  # fmt: skip
        return [f"{key}={value}" for key, value in keys.items()]

    def run(self, **more: object) -> float:
        """Samples per second of flsplit, start-up and evaluation apart; `more` as in `keys`."""
        summary = flsplit.run(self.keys(**more)).summary
        assert summary["status"] == "completed", summary
        return float(summary["samples_per_second"])

    def vit(self) -> VisionTransformer:
        """The model before its first step, in training mode, on the device."""
        model = build(self.model, classes=self.classes, image_size=self.size, pretrained=False, seed=0)
        return model.train().to(self.device)

    def batches(self, dataset: Sequence[str] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """What the one client of `run` gets in its first round: images (B, 3, S, S), and labels (B,).

        Args:
            dataset: overrides that choose other data.
        """
        keys = dataset or ["dataset=cifar100", f"dataset.path={self.folder / 'data'}"]
        loaded = data.load(compose(keys).dataset, seed=0)
        table, parts = loaded.train, data.deal(loaded.samples(()), 1, data.build_partition("iid"), seed=0)
        cfg = getattr(self.vit(), "pretrained_cfg", None) or {}
        pipeline = Pipeline(
            image_size=self.size, augment="paper", mean=cfg.get("mean", _HALF), std=cfg.get("std", _HALF),
            device=torch.device(self.device), seed=0, workers=torch.get_num_threads(),
        )  # fmt: skip
        return pipeline.train_batches(
            table, parts[0], client=0, round=1, batch_size=self.batch, local_steps=self.steps
        )  # fmt: skip

    def autocast(self) -> AbstractContextManager[object]:
        """Context of forward passes."""
        return autocast(self.device, self.precision)

    def timed(self, step: Callable[[Tensor, Tensor], Tensor]) -> float:
        """Samples per second of a loop that makes the batches and calls `step` on each."""
        batches, samples = self.batches(), 0
        self.wait()
        began = time.perf_counter()
        for images, labels in batches:
            step(images, labels)
            samples += len(labels)
        self.wait()
        return samples / (time.perf_counter() - began)

    def wait(self) -> None:
        """Let a GPU finish what it has been told."""
        if self.device == "cuda":
            torch.cuda.synchronize()
