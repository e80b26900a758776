import contextlib
import io
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from flsplit import online
from flsplit.data import DataError, DatasetConfig, check, load
from flsplit.data.sources import hub

CONFIG = DatasetConfig(name="cifar10", hub="uoft-cs/cifar10", image_column="img", label_column="label", augment="paper")


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxies, no caches, no settings of the machine."""
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(online, "getproxies", dict)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def server() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def refused() -> None:
    with pytest.raises(DataError) as caught:
        check(CONFIG)
    assert str(caught.value) == (
        "dataset=cifar10 needs the Hugging Face Hub, which cannot be reached; "
        "give a local copy with dataset.path=FOLDER"
    )


def test_a_hub_that_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://{server}")
    check(CONFIG)


def test_offline_mode(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://{server}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused()


def test_a_hub_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    refused()


def test_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def silence(*_: object) -> None:
        time.sleep(60)
        raise TimeoutError

    monkeypatch.setattr(online, "_SECONDS", 0.2)
    monkeypatch.setattr(online.socket, "create_connection", silence)
    start = time.monotonic()
    refused()
    assert time.monotonic() - start < 50


def test_a_proxy_is_asked_instead(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://does-not-exist.invalid")
    refused()
    monkeypatch.setattr(online, "getproxies", lambda: {"https": f"http://{server}"})
    check(CONFIG)


@pytest.mark.parametrize("variable", ["HF_DATASETS_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_what_is_in_the_cache_of_datasets_needs_no_hub(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"HF_DATASETS_CACHE": "", "HF_HOME": "datasets", "XDG_CACHE_HOME": "huggingface/datasets"}
    prepared = tmp_path / below[variable] / "uoft-cs___cifar10" / "plain_text" / "0.0.0" / "abc"
    refused()
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    check(CONFIG)


@pytest.fixture
def fake_hub(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Replaces the download by a data set in memory, with the Hub's features."""
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cow"])})
    pixels, parts = {}, {}
    for split, count in (("train", 9), ("test", 3)):
        pixels[split] = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
        encoded = []
        for image in pixels[split]:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": None})
        labels = [row % 3 for row in range(count)]
        parts[split] = datasets.Dataset.from_dict({"img": encoded, "label": labels}, features=features)

    def load_dataset(name: str, split: str) -> datasets.Dataset:
        assert name == "uoft-cs/cifar10"
        return parts[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return pixels


def test_loads_from_the_hub(fake_hub: dict[str, np.ndarray], cache_dir: Path) -> None:
    data = load(CONFIG, seed=0, cache_dir=cache_dir)
    assert data.classes == ("ant", "bee", "cow")
    assert data.train.labels.tolist() == [0, 1, 2] * 3
    assert np.array_equal(data.train.pixels, fake_hub["train"])
    assert np.array_equal(data.test.pixels, fake_hub["test"])


@pytest.mark.parametrize("progress", ["0", "1"])
def test_bars_of_datasets_are_for_terminals(
    progress: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLSPLIT_PROGRESS", progress)
    part = datasets.Dataset.from_dict({"img": [f"{n}" for n in range(50)], "label": [n % 2 for n in range(50)]})
    for split in ("train", "test"):
        part.to_parquet(str(tmp_path / "there" / f"{split}.parquet"))
    capfd.readouterr()
    with contextlib.suppress(DataError):  # these are no images
        hub.source(replace(CONFIG, hub=str(tmp_path / "there")), ())
    assert capfd.readouterr().err == ""
    assert not datasets.are_progress_bars_disabled()


def test_splits_of_the_hub_with_other_names_are_refused(
    fake_hub: dict[str, np.ndarray], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset, turned = datasets.load_dataset, datasets.ClassLabel(names=["bee", "ant", "cow"])

    def renamed(name: str, split: str) -> datasets.Dataset:
        part = load_dataset(name, split=split)
        return part if split == "train" else part.cast(datasets.Features({**part.features, "label": turned}))

    monkeypatch.setattr(datasets, "load_dataset", renamed)
    with pytest.raises(DataError, match=r"uoft-cs/cifar10 on the Hub: the label 0 is 'ant' in .*, but 'bee' in"):
        load(CONFIG, seed=0, cache_dir=cache_dir)


def test_a_built_table_needs_no_hub(
    fake_hub: dict[str, np.ndarray], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(CONFIG, seed=0, cache_dir=cache_dir)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check(CONFIG, cache_dir=cache_dir)
    refused()


def test_a_limit_from_the_hub(fake_hub: dict[str, np.ndarray], cache_dir: Path) -> None:
    limited = DatasetConfig(**{**CONFIG.__dict__, "train_limit": 3})
    data = load(limited, seed=0, cache_dir=cache_dir)
    assert data.train.labels.tolist().count(1) == 1
    for image, label in zip(data.train.pixels, data.train.labels):
        row = np.flatnonzero((fake_hub["train"] == image).all((1, 2, 3)))
        assert row[0] % 3 == label


def test_a_wrong_column_is_named(fake_hub: dict[str, np.ndarray], cache_dir: Path) -> None:
    wrong = DatasetConfig(**{**CONFIG.__dict__, "label_column": "fine"})
    with pytest.raises(DataError, match=r"dataset\.label_column: .* no column 'fine', only img, label"):
        load(wrong, seed=0, cache_dir=cache_dir)


@pytest.mark.parametrize(
    ("error", "message"),
    [(ConnectionError("x"), "cannot be reached"), (ValueError("Unknown split\nmore"), "Unknown split")],
)
def test_a_failed_download_is_one_line(
    error: Exception, message: str, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=message) as caught:
        load(CONFIG, seed=0, cache_dir=cache_dir)
    assert "\n" not in str(caught.value)
