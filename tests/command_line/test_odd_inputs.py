"""Odd files and odd numbers, in tables: each is refused in one line that names key, fault and remedy, or is fine."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.command_line import Accepted, Refused
from PIL import Image

HUGE = "9" * 30
NUMBERS = [
    # what is typed, the key and what would be right
    *[(f"{key}={value}", key, "a whole number")
      for key in ("clients", "rounds", "batch_size", "seed", "model.split_point", "min_clients")
      for value in ("1e400", "nan", "-0.0")],
    *[(f"{key}={HUGE}", key, "at most") for key in ("clients", "rounds", "local_steps", "batch_size", "eval_every")],
    ("clients=-0", "clients", "at least 1"),
    ("clients=1000000000", "clients", "only 1437 training samples"),
    ("rounds=1000000000000", "rounds", "at most 1000000000"),
    ("model.image_size=100000", "model.image_size", "between 4 and 4096"),
    ("model.image_size=4096 batch_size=4096 clients=1", "model.image_size=4096", "lower one of them"),
    ("model=timm model.name=vit_tiny_patch16_224 model.pretrained=false model.image_size=4096 clients=1 "
     "batch_size=1400", "batch_size=1400", "GB of memory"),
    ("engine.stack=100 clients=100 model.image_size=2048 partition=iid", "engine.stack=100", "GB of memory"),
    ("lr=1e400", "lr", "a positive number"),
    ("lr=-0.0", "lr", "a positive number"),
    ("compressor.ratio=-0", "compressor.ratio", "(0, 1]"),
    ("compressor.ratio=1e400", "compressor.ratio", "(0, 1]"),
    ("compressor=topk compressor.rate=nan", "compressor.rate", "(0, 1]"),
    ("compressor=randtopk compressor.alpha=nan", "compressor.alpha", "[0, 1)"),
    (f"compressor=c3sl compressor.group={HUGE}", "compressor.group", "divide the batch size"),
    ("partition.alpha=1e-400", "partition.alpha", "above 0"),
    ("partition.holdout=nan", "partition.holdout", "below 1"),
    (f"partition=shards partition.shards_per_client={HUGE}", "shards", "samples"),
    ("partition=quantity partition.sigma=nan", "partition.sigma", "finite"),
    ("dataset.train_limit=-0", "dataset.train_limit", "1 or more"),
    ("dataset.test_limit=nan", "dataset.test_limit", "a whole number"),
    ("engine.cpus_per_client=1e400", "engine.cpus_per_client", "a positive number"),
    ("engine.gpus_per_client=nan", "engine.gpus_per_client", "auto or a number"),
    ("budget.base_epochs=nan", "budget.base_epochs", "above 0"),
    ("budget.base_epochs=1e400", "budget.base_epochs", "above 0"),
    ("client_timeout=nan", "client_timeout", "seconds above 0"),
    ("faults.nan=nan", "faults.nan", "between 0 and 1"),
    ("faults.dropout=-0.1", "faults.dropout", "between 0 and 1"),
    ("faults.straggle_seconds=1e400", "faults.straggle_seconds", "between 0 and"),
    (f"faults.straggle_seconds={HUGE}", "faults.straggle_seconds", "between 0 and"),
    ("strategy.max_update_norm=nan", "strategy.max_update_norm", "above 0"),
    ("strategy.logit_adjustment=nan", "strategy.logit_adjustment", "at least 0"),
    ("strategy.logit_adjustment=-1", "strategy.logit_adjustment", "at least 0"),
    ("strategy.max_update_norm=-0", "strategy.max_update_norm", "above 0"),
]  # fmt: skip


@pytest.mark.some
@pytest.mark.parametrize(("typed", "key", "right"), NUMBERS, ids=[typed for typed, _, _ in NUMBERS])
def test_a_number_that_cannot_be(refused: Refused, typed: str, key: str, right: str) -> None:
    line = refused("engine=inline", *typed.split())
    assert key in line and right in line


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Class folders of two classes."""
    folder = tmp_path / "images"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (len(split), len(name), 7)).save(folder / split / name / "0.png")
    return folder


def png(**of: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(of.pop("mode", "RGB"), of.pop("size", (8, 8))).save(buffer, of.pop("format", "PNG"), **of)
    return buffer.getvalue()


def an_enormous_png(side: int) -> bytes:
    """A PNG that says it has side x side pixels, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def write(name: str, content: bytes) -> Callable[[Path], object]:
    def make(images: Path) -> None:
        path = images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return make


def link(name: str, target: str) -> Callable[[Path], object]:
    return lambda images: (images / name).symlink_to(target)


def twice_linked(images: Path) -> None:
    (images / "train" / "cat" / "more").symlink_to("../dog")
    (images / "train" / "dog" / "more").symlink_to("../cat")


def unicode_twice(images: Path) -> None:
    for name in ("caf\u00e9", "cafe\u0301"):
        write(f"train/{name}/0.png", png())(images)


def noise() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


NOISE = noise()
FOLDERS = [
    ("text", write("train/cat/1.png", b"no image"), "train/cat/1.png cannot be read as an image"),
    ("html", write("train/cat/1.jpg", b"<html>404</html>"), "train/cat/1.jpg cannot be read as an image"),
    ("empty file", write("test/dog/1.png", b""), "test/dog/1.png cannot be read as an image"),
    ("cut png", write("test/dog/1.png", NOISE[: len(NOISE) // 2]), "test/dog/1.png cannot be read as an image"),
    ("cut jpeg", write("train/dog/1.jpg", png(format="JPEG", size=(99, 99))[:400]), "1.jpg cannot be read as an image"),
    ("cut gif", write("train/dog/1.gif", png(format="GIF")[:20]), "1.gif cannot be read as an image"),
    ("30,000 x 30,000", write("train/cat/1.png", an_enormous_png(30_000)), "train/cat/1.png cannot be read"),
    ("says 2**31 - 1", write("train/cat/1.png", an_enormous_png(2**31 - 1)), "train/cat/1.png cannot be read"),
    ("an empty class", lambda images: (images / "train" / "cow").mkdir(), "no images in"),
    ("a hidden image only", write("train/cow/.0.png", png()), "no images in"),
    ("a class in test only", write("test/cow/0.png", png()), "the class 'cow' is in test/ but not in train/"),
    ("a link to itself", link("train/cat/1.png", "1.png"), "dataset.path: "),
    ("a link to nothing", link("train/cat/1.png", "/nowhere/at/all"), "No such file"),
    ("a class that is the training folder", link("train/all", "."), "leads back to"),
    ("a link to the folder above", link("train/cat/up", ".."), "leads back to"),
    ("a link to everything", link("test/cat/up", "/"), "leads back to"),
    ("two links in a circle", twice_linked, "leads back to"),
    ("two Unicode forms", unicode_twice, "two Unicode forms"),
    ("no text", lambda images: (images / "train" / os.fsdecode(b"\xff")).mkdir(), "no Unicode text"),
]  # fmt: skip


@pytest.mark.some
@pytest.mark.parametrize(("make", "says"), [case[1:] for case in FOLDERS], ids=[case[0] for case in FOLDERS])
def test_a_class_folder_that_cannot_be(
    refused: Refused, images: Path, make: Callable[[Path], object], says: str
) -> None:
    make(images)
    line = refused("dataset=folder", f'dataset.path="{images}"', "clients=1")
    assert says in line and "dataset.path" in line


FINE = [
    ("16 bit", write("train/cat/1.png", png(mode="I;16"))),
    ("CMYK", write("train/cat/1.jpg", png(mode="CMYK", format="JPEG"))),
    ("palette", write("train/cat/1.png", png(mode="P"))),
    ("animated", write("train/cat/1.gif", png(format="GIF", save_all=True, append_images=[Image.new("L", (8, 8), 9)]))),
    ("1 x 1", write("train/cat/1.png", png(size=(1, 1)))),
    ("a linked folder", link("train/cat/more", "../../test/cat")),
    ("hidden", write("train/.git/1.png", b"no image")),
    ("the same name in both Unicode forms", lambda images: (
        (images / "train" / "dog").rename(images / "train" / "caf\u00e9"),
        (images / "test" / "dog").rename(images / "test" / "cafe\u0301"),
    )),
]  # fmt: skip


@pytest.mark.some
@pytest.mark.parametrize("make", [case[1] for case in FINE], ids=[case[0] for case in FINE])
def test_an_unusual_folder_is_fine(accepted: Accepted, images: Path, make: Callable[[Path], object]) -> None:
    make(images)
    assert len(accepted("dataset=folder", f'dataset.path="{images}"', "clients=1")) == 1


def table(labels: Any, column: str = "label", picture: str = "image", names: Any = None) -> pa.Table:
    """Of images in a Hub's columns."""
    made = pa.table({picture: [{"bytes": png(), "path": None}] * len(labels), column: labels})
    info = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
    return made if names is None else made.replace_schema_metadata({"huggingface": json.dumps(info)})


def damaged(table: pa.Table, change: Callable[[bytearray], object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="snappy")
    content = bytearray(buffer.getvalue())
    change(content)
    return bytes(content)


def garbled(content: bytearray) -> None:
    content[4:-200] = bytes(value ^ 0x5A for value in content[4:-200])


GOOD = [0, 1, 0, 1]
PARQUET = [
    # training, test, what is said
    (b"", None, "not a readable Parquet file"),
    (b"PAR1", None, "not a readable Parquet file"),
    (damaged(table(GOOD), lambda content: content.__delitem__(slice(-9, None))), None, "not a readable Parquet file"),
    (damaged(table(GOOD), lambda content: content.__delitem__(slice(0, 60))), None, "not a readable Parquet file"),
    (damaged(table(GOOD * 50), garbled), None, "damaged"),
    (None, damaged(table(GOOD), lambda content: content.__delitem__(slice(-9, None))), "not a readable Parquet file"),
    (table([[0], [1], [0], [1]]), None, "labels of type list"),
    (table([{"a": 0}, {"a": 1}]), None, "labels of type struct"),
    (table([0, None, 1, 0]), None, "row 1 is without a label"),
    (table([None, None]), None, "row 0 is without a label"),
    (table(["cat", "dog"]), None, "dataset.label_column"),
    (table([0.0, 1.0]), None, "must be integers"),
    (table([True, False]), None, "must be integers"),
    (table(pa.array([], pa.int64())), None, "has no samples"),
    (table([0, -1]), None, "labels must be 0 or more"),
    (table([0, 10**12]), None, "without gaps"),
    (table([0, 2]), None, "has the label 2, but no training sample of 1"),
    (table(pa.array([0, 2**64 - 1], pa.uint64())), None, "label"),
    (table(GOOD, column="fine"), None, "no column 'label', only image, fine; name the right one with dataset.lab"),
    (table(GOOD, picture="img"), None, "no column 'image', only img, label; name the right one with dataset.im"),
    (None, table([0, 2]), "the label 2, but only 2 classes"),
    (table([0, 0], names=["cat", "dog"]), table([1]), "test samples of 'dog', but no training samples"),
    (None, table(pa.array([], pa.int64())), "has no samples"),
    (pa.table({"image": ["a.png", "b.png"], "label": [0, 1]}), None, "no encoded images in 'image'"),
    (pa.table({"image": [1.5, 2.5], "label": [0, 1]}), None, "no encoded images in 'image'"),
    (pa.table({"image": [{"bytes": b"no image"}], "label": [0]}), table([0]), "image 0 cannot be read as an image"),
]  # fmt: skip


@pytest.mark.some
@pytest.mark.parametrize(("train", "test", "says"), PARQUET, ids=[f"{n} {case[2]}" for n, case in enumerate(PARQUET)])
def test_parquet_that_cannot_be(refused: Refused, tmp_path: Path, train: Any, test: Any, says: str) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    for name, content in (("train-0", train), ("test-0", test)):
        file = folder / f"{name}.parquet"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            pq.write_table(table(GOOD) if content is None else content, file)
    line = refused("dataset=folder", f'dataset.path="{folder}"', "clients=1", "model.image_size=8")
    assert says in line and "dataset.path" in line


PROFILES = [
    (b"client,speed\n0,nan\n", "line 2: speed must be above 0"),
    (b"client,speed\n0,inf\n", "line 2: speed must be above 0 and at most 1"),
    (b"client,ratio\n0,1e400\n", "line 2: ratio must be above 0 and at most 1"),
    (b"client,batch_size\n0,nan\n", "line 2: batch_size must be a whole number"),
    (b"client,batch_size\n0," + HUGE.encode() + b"\n", "line 2: batch_size must be at least 1 and at most"),
    (b"client,local_steps\n0," + HUGE.encode() + b"\n", "line 2: local_steps must be at least 1 and at most"),
    (b"client,ratio\n" + HUGE.encode() + b",1\n", "line 2: client must be between 0 and 1"),
    (b"client,ratio\n-0.0,1\n", "line 2: client must be a whole number"),
    (b"client,ratio\n0,0.5\n0,0.5\n", "line 3: client 0 has a row already"),
    (b"client,ratio,ratio\n0,0.5,0.1\n", "has the column 'ratio' twice"),
    (b"client;ratio\n0;0.5\n", "separated by commas"),
    (b"client\tratio\n0\t0.5\n", "separated by commas"),
    (b"\xff\xfec\x00l\x00i\x00", "cannot be read as a CSV file"),
    (b"client,ratio\n0,\xff\n", "cannot be read as a CSV file"),
    (b"client,ratio\n0,0.5\x00\n", "client_profile"),
    (b"", "must have a column client"),
]  # fmt: skip


@pytest.mark.some
@pytest.mark.parametrize(("content", "says"), PROFILES)
def test_a_client_profile_that_cannot_be(refused: Refused, tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "profile.csv"
    path.write_bytes(content)
    line = refused("engine=inline", "clients=2", f'client_profile="{path}"')
    assert says in line and "client_profile" in line


@pytest.mark.slow
def test_out_inside_another_run(refused: Refused, a_run: Path) -> None:
    assert "holds a run" in refused(f"out={a_run / 'checkpoint' / 'mine'}", "engine=inline")
    assert "holds a run" in refused(f"out={a_run / 'mine' / 'deep'}", "engine=inline")


@pytest.mark.slow
def test_a_mistake_takes_at_most_twice_the_time_of_the_import(tmp_path: Path) -> None:
    def seconds(*arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, check=False)
        return time.perf_counter() - start

    least = {"import": math.inf, "refused": math.inf}
    for _ in range(8):  # beside other work a single measurement says little
        least["import"] = min(least["import"], seconds("-c", "import flsplit.experiment"))
        least["refused"] = min(least["refused"], seconds("-m", "flsplit.cli", "lr=nan"))
        if least["refused"] <= 2 * least["import"]:
            return
    raise AssertionError(least)


def test_a_folder_unpacked_again_is_read_again(images: Path, tmp_path: Path) -> None:
    from flsplit.data import DatasetConfig, load

    def unpack(colour: int) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(buffer, "BMP")
        file.write_bytes(buffer.getvalue())
        os.utime(file, ns=(10**18, 10**18))  # an archive keeps times

    own, file = DatasetConfig(name="folder", path=str(images)), images / "train" / "cat" / "0.png"
    found = []
    for colour in (1, 2):
        unpack(colour)
        found.append(load(own, seed=0, cache_dir=tmp_path / "cache"))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (8 * 8 * 3 + 54, 10**18)
    assert [dataset.train.pixels[0, 0, 0, 0] for dataset in found] == [1, 2]
    assert found[0].fingerprint != found[1].fingerprint
