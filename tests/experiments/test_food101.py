"""The paper's second data set by the same commands, from a class-folder copy: JPEG files of unlike sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.paper import __main__ as command

CLASSES = [f"dish_{number}" for number in range(10)]


def photographs(folder: Path) -> None:
    """Eight training images and two test images of each class, as large as Food101's and smaller."""
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for name in CLASSES:
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                width, height = random.integers(120, 513, 2)
                coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
                image.convert("L" if number == 1 else "RGB").save(place / f"{number}.jpg", quality=90)


@pytest.mark.slow
def test_a_class_folder_copy_gives_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photographs(tmp_path / "food101")
    words = ["fig4", "--dataset", "food101", "--model", "deit_tiny", "--scale", "reduced", "--methods", "base,adc"]
    words += ["--ratios", "0.2", "--data", str(tmp_path / "food101"), "--machine", "device=cpu", "--machine"]
    words += ["engine=inline", "--set", "model.pretrained=false", "--set", "batch_size=16"]
    words += ["--set", "budget.base_epochs=2", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert command.main([*words, "--figures", str(tmp_path / "figures")]) == 0
    rows = pd.read_csv(tmp_path / "results" / "results.csv").set_index("method")
    assert rows.dataset.tolist() == ["food101"] * 2 and rows.samples["base"] == 2 * 80
    assert 4.5 < rows.samples["adc"] / rows.samples["base"] < 6  # as many bits, a fifth of them a sample
    assert rows.final_test_accuracy.between(0, 1).all()
    assert "drew" in capsys.readouterr().out and len(list((tmp_path / "figures").iterdir())) == 1
