"""Random images in the forms that flsplit reads, so that the bench need download nothing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

CLASSES = 100  # of `noise`, at most
PHOTO, LABELS = (512, 384), 4  # of `photographs`: pixels, classes


def noise(folder: Path, *, train: int, test: int, pixels: int = 32) -> None:
    """Write a dataset of random square images in CIFAR-100's columns, labels in turn."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, count in (("train", train), ("test", test)):
        images = random.integers(0, 256, (count, pixels, pixels, 3), dtype=np.uint8)
        frame = pd.DataFrame({
            "img": [{"bytes": _png(image), "path": None} for image in images],
            "fine_label": np.arange(count) % CLASSES,
            "coarse_label": np.arange(count) % 20,
        })  # fmt: skip
        frame.to_parquet(folder / f"{name}-00000-of-00001.parquet")


def photographs(folder: Path, count: int) -> None:
    """Write class folders of JPEG files, smooth as photographs are rather than noise."""
    random = np.random.default_rng(0)
    for split, number in (("train", count), ("test", LABELS)):
        for index in range(number):
            place = folder / split / str(index % LABELS)
            place.mkdir(parents=True, exist_ok=True)
            coarse = random.integers(0, 256, (PHOTO[1] // 8, PHOTO[0] // 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=90)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()
