import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flsplit.data import DatasetConfig


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def save_image(rng: np.random.Generator) -> Callable[..., Path]:
    """Writes a random image and returns its path."""

    def save(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB", **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path, **options)
        return path

    return save


@pytest.fixture
def image_folder(tmp_path: Path, save_image: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a small data set of class folders."""

    def make(size: tuple[int, int] = (8, 8), train: int = 3, test: int = 2, extension: str = "png") -> Path:
        root = tmp_path / "images"
        for split, count in (("train", train), ("test", test)):
            for name in ("cat", "dog"):
                for number in range(count):
                    save_image(root / split / name / f"{number}.{extension}", size)
        return root

    return make


@pytest.fixture
def folder_config() -> Callable[..., DatasetConfig]:
    def make(path: Path, **options: object) -> DatasetConfig:
        return DatasetConfig(name="folder", path=str(path), **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def cifar100() -> DatasetConfig:
    """The complete CIFAR-100, if it lies on this machine."""
    named = os.environ.get("FLSPLIT_TEST_DATA")
    data = Path(named) if named else Path(__file__).parents[2].parent / "shared" / "data"
    if not (data / "cifar100").is_dir():
        pytest.skip("needs CIFAR-100 as Parquet in $FLSPLIT_TEST_DATA/cifar100")
    return DatasetConfig(name="cifar100", path=str(data / "cifar100"), image_column="img", label_column="fine_label")
