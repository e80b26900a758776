"""Further columns of a data set (writer, site, device), by which its samples can be dealt out."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import flsplit
from flsplit.compose import compose
from flsplit.data import DataError, DatasetConfig, check, load
from flsplit.errors import UserError

WRITERS = ["ann", "bob", "ann", "cyd", "bob", "ann"]


def images(count: int) -> list[dict[str, Any]]:
    found = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(buffer, "PNG")
        found.append({"bytes": buffer.getvalue(), "path": None})
    return found


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., str]:
    """Writes six training images in two Parquet files, with further columns, and two test images without any."""

    def write(**columns: list[Any]) -> str:
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        table = pa.table({"image": images(6), "label": [0, 1, 0, 1, 0, 1], **columns})
        pq.write_table(table[:4], folder / "train-0.parquet")
        pq.write_table(table[4:], folder / "train-1.parquet")
        pq.write_table(pa.table({"image": images(2), "label": [0, 1]}), folder / "test.parquet")
        return str(folder)

    return write


def config(path: object, **options: Any) -> DatasetConfig:
    return DatasetConfig(name="folder", path=str(path), **options)


def again(file: Path, column: str) -> None:
    """Writes a column once more, with the same values."""
    table = pq.read_table(file)
    pq.write_table(table.append_column(table.schema.field(column), table[column]), file)


@pytest.mark.parametrize(
    ("file", "column", "said"),
    [
        ("train-1", "image", "dataset.path: train-1.parquet"), ("test", "image", "dataset.path: test.parquet"),
        ("train-0", "label", "dataset.path: train-0.parquet"), ("test", "label", "dataset.path: test.parquet"),
        ("train-1", "writer", "partition: train-1.parquet"),
    ],
)  # fmt: skip
def test_two_columns_of_one_name_are_refused(
    file: str, column: str, said: str, files: Callable[..., str], cache_dir: Path
) -> None:
    own = config(files(writer=WRITERS))
    again(Path(str(own.path)) / f"{file}.parquet", column)
    for read in (check, partial(load, seed=0, cache_dir=cache_dir)):
        with pytest.raises(DataError) as caught:
            read(own, columns=("writer",))
        assert str(caught.value) == f"{said} has several columns {column!r}; give each a name of its own"


def test_two_columns_of_one_name_that_nobody_asks_for(files: Callable[..., str], cache_dir: Path) -> None:
    own = config(files(writer=WRITERS))
    again(Path(str(own.path)) / "train-0.parquet", "writer")
    assert len(load(own, seed=0, cache_dir=cache_dir).train) == 6


def test_two_fields_of_one_name_in_images_are_refused(files: Callable[..., str], cache_dir: Path) -> None:
    own = config(files())
    found = pa.array([image["bytes"] for image in images(2)])
    twice = pa.StructArray.from_arrays([found, found], names=["bytes", "bytes"])
    pq.write_table(pa.table({"image": twice, "label": [0, 1]}), Path(str(own.path)) / "test.parquet")
    for read in (check, partial(load, seed=0, cache_dir=cache_dir)):
        with pytest.raises(DataError, match=r"test.parquet has several fields 'bytes' in 'image'; give each a name"):
            read(own)


@pytest.mark.parametrize("column", ["image", "label", "site"])
def test_two_columns_of_one_name_in_a_saved_data_set_are_refused(column: str, tmp_path: Path, cache_dir: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"]), "site": datasets.Value("string")}
    )
    rows = {"image": images(2), "label": [0, 1], "site": ["s", "t"]}
    part = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=part, test=part).save_to_disk(str(tmp_path / "saved"))
    [file] = (tmp_path / "saved" / "train").glob("*.arrow")
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    table = table.append_column(table.schema.field(column), table[column])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(DataError, match=rf"saved cannot be read: .*{column}\W+exists 2 times") as caught:
        load(config(tmp_path / "saved"), seed=0, columns=("site",), cache_dir=cache_dir)
    assert "\n" not in str(caught.value)


def test_columns_of_parquet_files(files: Callable[..., str], cache_dir: Path) -> None:
    own = config(files(writer=WRITERS, file=[3, 1, 2, 3, 1, 2]))
    check(own, columns=("writer",))
    data = load(own, seed=0, columns=("writer", "file"), cache_dir=cache_dir)
    assert data.train.column("writer").tolist() == WRITERS
    assert data.train.column("file").tolist() == [3, 1, 2, 3, 1, 2]
    samples = data.samples(("writer",))
    assert list(samples.columns) == ["writer"]
    assert samples.at(np.array([3, 0])).columns["writer"].tolist() == ["cyd", "ann"]


def test_whole_numbers_of_64_bits_without_a_sign(files: Callable[..., str], folders: Path, cache_dir: Path) -> None:
    ids = [2**63 + 1, 5, 2**64 - 1, 5, 2**63, 2**63 + 1]
    own = config(files(writer=pa.array(ids, pa.uint64())))
    data = load(own, seed=0, columns=("writer",), cache_dir=cache_dir)
    assert data.train.column("writer").tolist() == [str(one) for one in ids]
    rows = [f"{name}/{number}.png,{2**63 + number}" for name in ("cat", "dog") for number in range(2)]
    (folders / "train" / "metadata.csv").write_text("\n".join(["file_name,writer", *rows]))
    data = load(config(folders), seed=0, columns=("writer",), cache_dir=cache_dir)
    assert data.train.column("writer").tolist() == [str(2**63), str(2**63 + 1)] * 2


def test_a_limit_takes_the_values_of_its_samples(files: Callable[..., str], cache_dir: Path) -> None:
    data = load(config(files(writer=WRITERS), train_limit=3), seed=0, columns=("writer",), cache_dir=cache_dir)
    rows = [int(image[0, 0, 0]) // 20 for image in data.train.pixels]
    assert len(rows) == 3
    assert data.train.column("writer").tolist() == [WRITERS[row] for row in rows]


def test_a_table_with_other_columns_is_another_one(files: Callable[..., str], cache_dir: Path) -> None:
    own = config(files(writer=WRITERS, site=WRITERS))
    asked: list[tuple[str, ...]] = [(), ("writer",), ("site",), ("site", "writer"), ("writer", "site")]
    names = [load(own, seed=0, columns=columns, cache_dir=cache_dir).path for columns in asked]
    assert len(set(names)) == 4 and names[3] == names[4]


REFUSED = [
    ("site", {}, r"partition: train-0.parquet has no column 'site'; it has label, writer"),
    ("image", {}, r"has no column 'image'; it has label, writer"),
    ("at", {"at": [1, None, 1, 1, 1, 1]}, r"rows without a value in the column 'at'"),
    ("at", {"at": [0.5] * 6}, r"has float in the column 'at'; it must hold whole numbers or text"),
]


@pytest.mark.parametrize(("column", "more", "message"), REFUSED)
def test_what_cannot_be_dealt_by(
    column: str, more: dict[str, list[Any]], message: str, files: Callable[..., str], cache_dir: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(config(files(writer=WRITERS, **more)), seed=0, columns=(column,), cache_dir=cache_dir)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folders(image_folder: Callable[..., Path]) -> Path:
    return image_folder(train=2, test=1)


def test_columns_of_class_folders(folders: Path, cache_dir: Path) -> None:
    rows = ["dog/1.png,12,x", "cat/0.png,2,y", "cat/1.png,12,x", "dog/0.png,3,y", "gone.png,,"]
    (folders / "train" / "metadata.csv").write_text("\n".join(["file_name,device,site", *rows]))
    check(config(folders), columns=("device",))
    data = load(config(folders), seed=0, columns=("device", "site"), cache_dir=cache_dir)
    assert data.train.column("device").tolist() == [2, 12, 3, 12]  # numbers, in the order of the images
    assert data.train.column("site").tolist() == ["y", "x", "y", "x"]
    (folders / "train" / "metadata.csv").write_text("\n".join(["file_name,device,site", *rows[::-1], ""]))
    assert load(config(folders), seed=0, columns=("device", "site"), cache_dir=cache_dir).path != data.path


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["10", "-1", "2", "0"], [10, -1, 2, 0]),
        (["01", "1", "2", "1"], ["01", "1", "2", "1"]),
        (["-0", "0", "2", "1"], ["-0", "0", "2", "1"]),
        (["+1", "1", "2", "1"], ["+1", "1", "2", "1"]),
        (["1 ", " 1", "2", " 3 "], [1, 1, 2, 3]),
        (["x ", " x", "y", "z z"], ["x", "x", "y", "z z"]),
    ],
)
def test_numbers_and_text_in_a_table_of_class_folders(
    values: list[str], expected: list[Any], folders: Path, cache_dir: Path
) -> None:
    files = ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    rows = [f"{file},{value}" for file, value in zip(files, values)]
    (folders / "train" / "metadata.csv").write_text("\n".join(["file_name,device ", *rows]))
    data = load(config(folders), seed=0, columns=("device",), cache_dir=cache_dir)
    assert data.train.column("device").tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,device\ncat/0.png,1\ncat/1.png,1\ndog/0.png,1\ndog/1.png,1\ncat/1.png ,2\n",
         r"train/metadata.csv has several rows for cat/1.png; each image needs one"),
        ("file_name,device\ncat/0.png,1\ncat/1.png,  \ndog/0.png,1\ndog/1.png,1\n", r"without a value in the column"),
        ("file_name,device,device \ncat/0.png,1,2\n", r"train/metadata.csv has several columns 'device'; give each"),
        ("file_name,device\ncat/0.png,Lab, 2nd floor\n", r"train/metadata.csv has more values than columns in the row"),
        (None, r"no column 'device'; class folders have columns in train/metadata.csv"),
        ("name,device\n", r"train/metadata.csv has no column 'file_name'; it has name, device"),
        ("file_name,site\n", r"train/metadata.csv has no column 'device'; it has file_name, site"),
        ("file_name,device\ncat/0.png,1\n", r"train/metadata.csv has no row for cat/1.png"),
        ("file_name,device\ncat/0.png,1\ncat/1.png,\ndog/0.png,1\ndog/1.png,1\n", r"without a value in the column"),
        ("file_name,device\ncat/0.png,1\ncat/1.png\ndog/0.png,1\ndog/1.png,1\n", r"without a value in the column"),
    ],
)  # fmt: skip
def test_class_folders_without_what_is_asked_for(text: str | None, message: str, folders: Path) -> None:
    if text is not None:
        (folders / "train" / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        check(config(folders), columns=("device",))


def test_columns_of_the_hub(monkeypatch: pytest.MonkeyPatch, cache_dir: Path) -> None:
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]), writer=datasets.Value("string")
    )
    columns = {"image": images(6), "label": [0, 1, 0, 1, 0, 1], "writer": WRITERS}
    whole = datasets.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: whole)
    own = DatasetConfig(name="cifar10", hub="some/thing")
    assert load(own, seed=0, columns=("writer",), cache_dir=cache_dir).train.column("writer").tolist() == WRITERS
    with pytest.raises(DataError, match="some/thing on the Hub has no column 'site'; it has label, writer"):
        load(own, seed=0, columns=("site",), cache_dir=cache_dir)


@pytest.mark.slow
def test_the_digits_have_none() -> None:
    with pytest.raises(UserError, match=r"dataset=digits has no column 'writer'; beside image and label it has none"):
        compose(["partition=column", "partition.column=writer"])
    with pytest.raises(UserError, match=r"partition.column must be given"):
        compose(["partition=column"])


@pytest.mark.slow
def test_a_run_with_a_client_for_each_writer(files: Callable[..., str], tmp_path: Path) -> None:
    keys = ["dataset=folder", f"dataset.path={files(writer=WRITERS)}", "partition=column", "partition.column=writer"]
    small = ["engine=inline", "compressor=base", "batch_size=2", "augment=none", f"out={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"clients=4: must be at most 3, .*: ann, bob, cyd"):
        flsplit.run([*keys, *small, "clients=4", "rounds=1"])
    assert not (tmp_path / "run").exists()
    run = flsplit.run([*keys, *small, "clients=3", "rounds=1"])
    assert run.clients.samples.tolist() == [2, 2, 1]  # ann has three: the last incomplete batch is dropped
    resumed = flsplit.run([f"resume={tmp_path / 'run'}", "rounds=2"])
    assert resumed.clients.groupby("client").samples.sum().tolist() == [4, 4, 2]
    with pytest.raises(UserError, match=r"partition.column=site differs from the run to resume, which has writer"):
        flsplit.run([f"resume={tmp_path / 'run'}", "partition=column", "partition.column=site"])
