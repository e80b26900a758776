import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flsplit.data import DataError, DatasetConfig, check, load, split_for_tests
from flsplit.data.sources.parquet import find

Write = Callable[..., Path]
NAMES = ["ant", "bee", "cow"]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def write(rng: np.random.Generator) -> Write:
    """Writes a Parquet file as the Hub has it, and keeps the pixels in `write.pixels[path]`."""

    def make(path: Path, labels: list[Any], names: list[str] | None = NAMES, **columns: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (len(labels), 6, 6, 3), dtype=np.uint8)
        images = [{"bytes": png(image), "path": None} for image in pixels]
        table = pa.table({"img": images, "label": labels, **columns})
        if names is not None:
            features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, path, row_group_size=2)
        make.pixels[path] = pixels  # type: ignore[attr-defined]
        return path

    make.pixels = {}  # type: ignore[attr-defined]
    return make


def config(path: Path, **options: Any) -> DatasetConfig:
    return DatasetConfig(**{"name": "cifar10", "path": str(path), "hub": "a/b", "image_column": "img"} | options)


@pytest.mark.parametrize("folder", ["", "data", "plain_text"])
@pytest.mark.parametrize("test_file", ["test-00000-of-00001", "validation-00000-of-00001", "test"])
def test_files_of_the_hub(write: Any, tmp_path: Path, cache_dir: Path, folder: str, test_file: str) -> None:
    root = tmp_path / "copy"
    first = write(root / folder / "train-00000-of-00002.parquet", [0, 1, 2, 0, 1])
    second = write(root / folder / "train-00001-of-00002.parquet", [2, 2, 1])
    test = write(root / folder / f"{test_file}.parquet", [0, 2])
    check(config(root))
    data = load(config(root), seed=0, cache_dir=cache_dir)
    assert data.classes == tuple(NAMES)
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 2, 1]
    assert np.array_equal(data.train.pixels, np.concatenate([write.pixels[first], write.pixels[second]]))
    assert np.array_equal(data.test.pixels, write.pixels[test])


SETS = [
    (["train-00000-of-00003", "train-00002-of-00003"], "must have the 'train' files 0 to 2, each once; it has tra"),
    (["train-00001-of-00002"], "must have the 'train' files 0 to 1, each once; it has train-00001"),
    (["train-00000-of-00001", "train-00000-of-00001-0a1b2c"], "must have the 'train' files 0 to 0, each once"),
    (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "more than one set of 'train' files"),
    (["train", "train-unlabeled"], "more than one set of 'train' files; keep one of train-unlabeled.parquet, train.p"),
    (["train", "train-0"], "more than one set of 'train' files"),
]


@pytest.mark.parametrize(("names", "message"), SETS)
def test_files_that_are_no_one_set(names: list[str], message: str, write: Any, tmp_path: Path, cache_dir: Path) -> None:
    for name in names:
        write(tmp_path / f"{name}.parquet", [0, 1, 2])
    write(tmp_path / "test.parquet", [0])
    refused(config(tmp_path), cache_dir, f"dataset.path: .* {message}")
    for name in names:
        tested = tmp_path / f"{name}.parquet"
        tested.rename(tested.with_name(tested.name.replace("train", "test")))
    write(tmp_path / "train.parquet", [0, 1, 2])
    if "train" not in names:
        (tmp_path / "test.parquet").unlink()
    refused(config(tmp_path), cache_dir, "'test' file")


@pytest.mark.parametrize(
    "names",
    [["train-0", "train-1"], ["train-1-of-2", "train-2-of-2"], ["train-part-0", "train-part-1"], ["train-part"],
     ["train-00000-of-00002-0a1b", "train-00001-of-00002-2c3d"], [f"train-{number}" for number in range(11)]],
)  # fmt: skip
def test_files_that_are_one_set(names: list[str], write: Any, tmp_path: Path) -> None:
    for name in [*names, "test", "validation-1-of-2"]:
        write(tmp_path / f"{name}.parquet", [0, 1, 2])
    assert [file.stem for file in (find(tmp_path, config(tmp_path)) or {})["train"]] == sorted(names)


def test_two_folders_of_training_files_are_refused(write: Any, tmp_path: Path, cache_dir: Path) -> None:
    for folder, labels in (("data", [0, 1]), ("a_small", [1, 0])):
        write(tmp_path / "copy" / folder / "train-0.parquet", labels)
        write(tmp_path / "copy" / folder / "test-0.parquet", [0])
    said = r"dataset.path: .*copy has training files in a_small, data; name one of these folders"
    refused(config(tmp_path / "copy"), cache_dir, said)
    found = load(config(tmp_path / "copy" / "a_small"), seed=0, cache_dir=cache_dir)
    assert found.train.labels.tolist() == [1, 0]
    write(tmp_path / "copy" / "train-0.parquet", [1, 1, 0])
    write(tmp_path / "copy" / "test-0.parquet", [0])
    assert len(load(config(tmp_path / "copy"), seed=0, cache_dir=cache_dir).train) == 3  # those of the folder itself


def test_a_limit_takes_the_right_rows(write: Any, tmp_path: Path, cache_dir: Path) -> None:
    files = [write(tmp_path / f"train-{i}.parquet", [0, 1, 2, 0, 1, 2, 0, 1, 2]) for i in range(2)]
    write(tmp_path / "test-0.parquet", [0])
    data = load(config(tmp_path, train_limit=9), seed=5, cache_dir=cache_dir)
    assert np.bincount(data.train.labels).tolist() == [3, 3, 3]
    whole = np.concatenate([write.pixels[file] for file in files])
    rows = [int(np.flatnonzero((whole == image).all((1, 2, 3)))[0]) for image in data.train.pixels]
    assert rows == sorted(rows)
    assert [row % 3 for row in rows] == data.train.labels.tolist()
    assert max(rows) >= 9 > min(rows)


def test_without_names_classes_are_numbers(write: Any, tmp_path: Path, cache_dir: Path) -> None:
    write(tmp_path / "train-0.parquet", [0, 3, 1, 2], names=None)
    write(tmp_path / "test-0.parquet", [1], names=None)
    assert load(config(tmp_path), seed=0, cache_dir=cache_dir).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("named", ["train-0", "train-1", "test-0"])
def test_files_without_names_are_taken_as_the_one_with(named: str, write: Any, tmp_path: Path, cache_dir: Path) -> None:
    for name in ("train-0", "train-1", "test-0"):
        write(tmp_path / f"{name}.parquet", [0, 1, 2], names=NAMES if name == named else None)
    assert load(config(tmp_path), seed=0, cache_dir=cache_dir).classes == tuple(NAMES)


@pytest.mark.parametrize(("labels", "names"), [([0], ["bee", "ant", "cow"]), ([1], ["ant", "cow"])])
@pytest.mark.parametrize("other", ["train-1.parquet", "test-0.parquet"])
def test_a_label_with_two_names_is_refused(
    other: str, labels: list[int], names: list[str], write: Any, tmp_path: Path, cache_dir: Path
) -> None:
    write(tmp_path / "train-0.parquet", [0, 1, 2])
    write(tmp_path / "test-0.parquet", [0])
    write(tmp_path / other, labels, names=names)
    label = labels[0]
    refused(
        config(tmp_path), cache_dir,
        f"the label {label} is '{NAMES[label]}' in train-0.parquet, but '{names[label]}' in {other}; all must have",
    )  # fmt: skip
    write(tmp_path / other, labels, names=None)
    check(config(tmp_path))
    assert load(config(tmp_path), seed=0, cache_dir=cache_dir).classes == tuple(NAMES)


def test_the_named_test_split_is_preferred(write: Any, tmp_path: Path, cache_dir: Path) -> None:
    write(tmp_path / "train-0.parquet", [0, 1])
    write(tmp_path / "test-0.parquet", [0])
    write(tmp_path / "validation-0.parquet", [0, 1])
    validation = config(tmp_path, test_split="validation")
    assert len(load(validation, seed=0, cache_dir=cache_dir).test) == 2
    assert len(load(config(tmp_path), seed=0, cache_dir=cache_dir).test) == 1
    assert (split_for_tests(validation), split_for_tests(config(tmp_path))) == ("validation", "test")
    (tmp_path / "test-0.parquet").unlink()
    assert split_for_tests(config(tmp_path)) == "validation"


def test_no_other_split_is_tested_on(write: Any, tmp_path: Path, cache_dir: Path) -> None:
    for name in ("train-0", "test-0", "validation-0"):
        write(tmp_path / f"{name}.parquet", [0, 1])
    said = r"train-0.parquet but no foo-\*.parquet; its splits are test, train, validation; name one with"
    refused(config(tmp_path, test_split="foo"), cache_dir, said)
    (tmp_path / "test-0.parquet").unlink()
    refused(config(tmp_path, train_split="validation"), cache_dir, r"but no test-\*.parquet; its splits are train, val")


def refused(bad: DatasetConfig, cache_dir: Path, message: str, at_check: bool = True) -> None:
    if at_check:
        with pytest.raises(DataError, match=message):
            check(bad)
    with pytest.raises(DataError, match=message) as caught:
        load(bad, seed=0, cache_dir=cache_dir)
    assert "\n" not in str(caught.value)


def test_mistakes_are_named(write: Any, tmp_path: Path, cache_dir: Path) -> None:
    train = write(tmp_path / "train-0.parquet", [0, 1])
    refused(config(tmp_path), cache_dir, r"train-0.parquet but no test-\*.parquet")
    test = write(tmp_path / "test-0.parquet", [0, 1])
    refused(config(tmp_path, image_column="image"), cache_dir, "no column 'image', only img, label.*image_column")
    refused(config(tmp_path, label_column="fine"), cache_dir, "no column 'fine'.*dataset.label_column")
    test.write_bytes(b"no parquet")
    refused(config(tmp_path), cache_dir, "test-0.parquet is not a readable Parquet file")
    write(test, [0, 3])
    refused(config(tmp_path), cache_dir, "the label 3, but only 3 classes", at_check=False)
    write(test, [0, -1])
    refused(config(tmp_path), cache_dir, "the label -1", at_check=False)
    write(test, [0, None])
    refused(
        config(tmp_path), cache_dir, "test-0.parquet: row 1 is without a label in the column 'label'", at_check=False
    )
    write(test, ["ant", "bee"])
    refused(config(tmp_path), cache_dir, "must be integers", at_check=False)
    write(test, [])
    refused(config(tmp_path), cache_dir, "no samples", at_check=False)
    write(test, [0])
    pq.write_table(pa.table({"img": [{"bytes": b"broken"}], "label": [0]}), train)
    refused(config(tmp_path), cache_dir, "train-0.parquet.*image 0 cannot be read", at_check=False)
    pq.write_table(pa.table({"img": [{"path": "a.png"}], "label": [0]}), train)
    refused(config(tmp_path), cache_dir, "no encoded images in 'img'", at_check=False)


@pytest.mark.parametrize("nothing", [None, {"bytes": None, "path": None}])
def test_a_row_without_an_image_is_named(nothing: object, write: Any, tmp_path: Path, cache_dir: Path) -> None:
    write(tmp_path / "train-0.parquet", [0, 1, 2])
    write(tmp_path / "test-0.parquet", [0])
    images = [{"bytes": png(np.zeros((6, 6, 3), np.uint8)), "path": None}, nothing]
    pq.write_table(pa.table({"img": images, "label": [0, 1]}), tmp_path / "train-1.parquet")
    said = "dataset.path: train-1.parquet: row 1 is without an image in the column 'img'; every row needs one"
    refused(config(tmp_path), cache_dir, said, at_check=False)


@pytest.mark.slow
def test_cifar100_bit_for_bit(cifar100: DatasetConfig, cache_dir: Path) -> None:
    check(cifar100)
    data = load(cifar100, seed=0, cache_dir=cache_dir)
    assert (data.train.pixels.shape, data.test.pixels.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert len(data.classes) == 100
    assert data.classes[0] == "apple"
    start = 0
    for file in sorted(Path(cifar100.path or "").glob("train-*.parquet")):
        table = pq.read_table(file)
        assert np.array_equal(table["fine_label"].to_numpy(), data.train.labels[start : start + table.num_rows])
        for row in range(0, table.num_rows, 997):
            with Image.open(io.BytesIO(table["img"][row].as_py()["bytes"])) as image:
                assert np.array_equal(np.asarray(image.convert("RGB")), data.train.pixels[start + row])
        start += table.num_rows
    assert start == 50_000
    assert (np.bincount(data.test.labels) == 100).all()


def test_cifar100_subset_of_the_reduced_experiments(cifar100: DatasetConfig, cache_dir: Path) -> None:
    limited = DatasetConfig(**{**cifar100.__dict__, "train_limit": 2500, "test_limit": 100})
    data = load(limited, seed=51, cache_dir=cache_dir)
    assert (np.bincount(data.train.labels) == 25).all()
    assert (np.bincount(data.test.labels) == 1).all()
