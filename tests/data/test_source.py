import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from flsplit.data import DataError, Dataset, DatasetConfig, Table, cache, check, load
from flsplit.data import source as source_module
from flsplit.data.subset import shares, stratified

DIGITS = DatasetConfig(name="digits")


def same(a: Table, b: Table) -> bool:
    images = all(np.array_equal(a.image(i), b.image(i)) for i in range(len(a)))
    return np.array_equal(a.labels, b.labels) and images


def test_digits_are_complete_and_the_split_is_fixed(cache_dir: Path) -> None:
    from sklearn.datasets import load_digits

    check(DIGITS)
    data = load(DIGITS, seed=0, cache_dir=cache_dir)
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.classes == tuple("0123456789")
    assert data.train.pixels.shape == (1437, 8, 8, 1)
    assert load(DIGITS, seed=1, cache_dir=cache_dir).path == data.path
    ours = np.concatenate([table.pixels.reshape(-1, 64) for table in (data.train, data.test)])
    labels = np.concatenate([data.train.labels, data.test.labels])
    theirs = load_digits()
    # The same multiset of (label, pixels), at 255/16 times the brightness.
    scaled = np.round(theirs.data * 255 / 16).astype(np.uint8)
    rows = [tuple(row) for row in np.column_stack([labels, ours])]
    assert sorted(rows) == sorted(tuple(row) for row in np.column_stack([theirs.target, scaled]))
    share = np.bincount(data.test.labels) / np.bincount(theirs.target)
    assert (np.abs(share - 0.2) < 0.01).all()


def test_grey_images_are_served_as_rgb(cache_dir: Path) -> None:
    data = load(DIGITS, seed=0, cache_dir=cache_dir)
    image = data.test.image(3)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    assert np.array_equal(np.asarray(image)[..., 1], data.test.pixels[3, :, :, 0])


def test_the_cache_is_opened_and_not_built_again(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(DIGITS, seed=0, cache_dir=cache_dir)

    def fail(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(source_module, "_write", fail)
    second = load(DIGITS, seed=0, cache_dir=cache_dir)
    assert same(first.test, second.test)
    assert same(first.test, Dataset.open(first.path).test)
    assert isinstance(second.train.pixels, np.memmap)


def test_nothing_written_through_a_table_reaches_the_cache(cache_dir: Path) -> None:
    data = load(DIGITS, seed=0, cache_dir=cache_dir)
    before = data.train.pixels[0].copy()
    data.train.pixels[0] += 1
    assert np.array_equal(Dataset.open(data.path).train.pixels[0], before)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("FLSPLIT_CACHE", str(tmp_path / "own"))
    assert load(DIGITS, seed=0).path.parent == tmp_path / "own"
    monkeypatch.delenv("FLSPLIT_CACHE")
    assert cache.root() == tmp_path / "xdg" / "flsplit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.root() == tmp_path / ".cache" / "flsplit"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="FLSPLIT_CACHE"):
        load(DIGITS, seed=0, cache_dir=tmp_path / "file")


def test_limits_are_stratified_and_seeded(cache_dir: Path) -> None:
    whole = load(DIGITS, seed=0, cache_dir=cache_dir)
    limited = DatasetConfig(name="digits", train_limit=200, test_limit=50)
    a, b = (load(limited, seed=seed, cache_dir=cache_dir) for seed in (0, 1))
    assert (len(a.train), len(a.test)) == (200, 50)
    assert a.path != b.path
    assert not same(a.train, b.train)
    exact = np.bincount(whole.train.labels) * 200 / 1437
    assert (np.abs(np.bincount(a.train.labels) - exact) < 1).all()
    # Rows of the whole table, in their order there.
    rows = {image.tobytes(): i for i, image in enumerate(whole.train.pixels)}
    positions = [rows[image.tobytes()] for image in a.train.pixels]
    assert positions == sorted(positions)
    assert np.array_equal(whole.train.labels[positions], a.train.labels)


def test_a_limit_beyond_the_data_takes_all(cache_dir: Path) -> None:
    assert len(load(DatasetConfig(name="digits", test_limit=10**6), seed=0, cache_dir=cache_dir).test) == 360


@pytest.mark.parametrize("key", ["train_limit", "test_limit", "max_side"])
def test_limits_below_one_are_refused(key: str) -> None:
    with pytest.raises(DataError, match=rf"dataset\.{key}=0: must be 1 or more"):
        check(DatasetConfig(name="digits", **{key: 0}))


def test_no_test_on_training_samples() -> None:
    assert DatasetConfig(name="folder").test_names == ("test", "validation", "valid", "val")
    assert DatasetConfig(name="food101", test_split="validation").test_names == ("validation", "test", "valid", "val")
    assert DatasetConfig(name="folder", train_split="validation").test_names == ("test", "valid", "val")
    assert DatasetConfig(name="folder", test_split="validation").test_names == ("validation",)  # typed
    with pytest.raises(DataError, match=r"dataset\.test_split=test: the model is trained on that split; name another"):
        check(DatasetConfig(name="cifar10", hub="a/b", train_split="test"))


def test_digits_take_no_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.path: the digits come with scikit-learn"):
        check(DatasetConfig(name="digits", path=str(tmp_path)))


def test_shares_follow_the_largest_remainder() -> None:
    rng = np.random.default_rng(0)
    assert shares(np.array([5.0, 3.0, 2.0]), 7, rng).tolist() == [4, 2, 1]  # 3.5, 2.1, 1.4
    dealt = [tuple(shares(np.ones(4), 2, rng)) for _ in range(50)]
    assert {sum(one) for one in dealt} == {2}
    assert len(set(dealt)) > 3  # ties are drawn


def test_a_subset_smaller_than_the_number_of_classes() -> None:
    labels = np.repeat(np.arange(100), 5)
    chosen = stratified(labels, 10, np.random.default_rng(0))
    assert len(np.unique(labels[chosen])) == 10


def _load_and_sum(path: str, cache_dir: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    data = load(DatasetConfig(name="folder", path=path), seed=0, cache_dir=cache_dir)
    results.put((data.path, sum(int(np.asarray(data.train.image(i), int).sum()) for i in range(400))))


@pytest.mark.slow
def test_two_processes_may_build_at_once(image_folder: Callable[..., Path], cache_dir: Path) -> None:
    path = image_folder((80, 100), train=200)
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    arguments = (str(path), cache_dir, barrier, results)
    processes = [spawn.Process(target=_load_and_sum, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = {results.get(timeout=600) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
    assert len(list(cache_dir.iterdir())) == 1


def test_the_slower_of_two_builders_takes_what_the_faster_made(tmp_path: Path) -> None:
    final = tmp_path / "table"

    def write(folder: Path) -> None:
        cache.build_once(final, lambda inner: (inner / "who").write_text("faster") and None)
        (folder / "who").write_text("slower")

    cache.build_once(final, write)
    assert (final / "who").read_text() == "faster"
    assert [item.name for item in tmp_path.iterdir()] == ["table"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, DataError])
def test_an_interrupted_build_leaves_nothing(
    error: type[BaseException], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def interrupt(folder: Path, *_: object) -> None:
        (folder / "train.labels.npy").write_bytes(b"half")
        written.append(folder)
        raise error("stop")

    monkeypatch.setattr(source_module, "write_table", interrupt)
    with pytest.raises(error, match="stop"):
        load(DIGITS, seed=0, cache_dir=cache_dir)
    assert written
    assert list(cache_dir.iterdir()) == []
    monkeypatch.undo()
    assert len(load(DIGITS, seed=0, cache_dir=cache_dir).train) == 1437


def test_what_a_killed_builder_left_is_removed_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".table.123"
    left.mkdir()
    (left / "blob").write_bytes(b"half")
    cache.build_once(tmp_path / "table", lambda folder: (folder / "a").touch())
    assert left.is_dir()  # it may be another process at work
    now = cache.time.time()
    monkeypatch.setattr(cache.time, "time", lambda: now + 2 * 24 * 3600)
    cache.build_once(tmp_path / "table2", lambda folder: (folder / "a").touch())
    assert left.is_dir()  # of another table
    (tmp_path / "table" / "a").unlink()
    (tmp_path / "table").rmdir()
    cache.build_once(tmp_path / "table", lambda folder: (folder / "a").touch())
    assert not left.exists()


def test_everything_that_matters_is_in_the_name(
    image_folder: Callable[..., Path], folder_config: Callable[..., DatasetConfig], cache_dir: Path
) -> None:
    path = image_folder()

    def name(seed: int = 0, **options: object) -> str:
        return load(folder_config(path, **options), seed=seed, cache_dir=cache_dir).path.name

    names = [name(), name(train_limit=4), name(seed=1, train_limit=4), name(test_limit=2), name(max_side=4)]
    assert len(set(names)) == 5
    assert name(seed=1) == names[0]
    assert name(augment="paper") == names[0]
    extra = path / "train" / "cat" / "extra.png"
    Image.new("RGB", (8, 8)).save(extra)
    assert name() not in names
    extra.unlink()
    assert name() == names[0]


def test_classes_are_kept_as_text(cache_dir: Path) -> None:
    data = load(DIGITS, seed=0, cache_dir=cache_dir)
    assert json.loads((data.path / "classes.json").read_text()) == list(data.classes)


def two_images() -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": [Image.new("L", (8, 8), 7)] * 2, "label": [0, 1]}, features)


SAVED, FILES, FOLDERS = "what save_to_disk left", r"Parquet files \({}train\*.parquet\)", r"class folders of images \("
FORMS = [
    (["folders", "export/train", "export/test"], FILES.format("export/"), FOLDERS),
    (["folders", "export/train"], FILES.format("export/"), FOLDERS),
    (["folders", "a/train", "b/train"], FILES.format("a/"), FOLDERS),
    (["folders", "train/train", "train/test"], FILES.format("train/"), FOLDERS),
    (["folders", "train", "test"], FILES.format(""), FOLDERS),
    (["folders", "saved"], SAVED, FOLDERS),
    (["saved", "export/train", "export/test"], SAVED, FILES.format("export/")),
]


@pytest.mark.parametrize(("there", "one", "other"), FORMS)
def test_data_in_two_forms_are_refused(
    there: list[str], one: str, other: str, image_folder: Callable[..., Path], tmp_path: Path, cache_dir: Path
) -> None:
    part = two_images()
    path = tmp_path / "images"
    if "folders" in there:
        image_folder()
    if "saved" in there:
        datasets.DatasetDict(train=part, test=part).save_to_disk(str(path))
    files = [path / f"{name}.parquet" for name in there if name not in ("folders", "saved")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        part.to_parquet(file)
    config = DatasetConfig(name="folder", path=str(path))
    below = rf", or name the folder {files[0].parent}" if files and files[0].parent != path else ""
    said = rf"^dataset.path: {path} holds {one} and {other}.*; leave only one of them in it{below}$"
    for call in (lambda: check(config), lambda: load(config, seed=0, cache_dir=cache_dir)):
        with pytest.raises(DataError, match=said):
            call()
    assert not cache_dir.exists()
    if there[1:] == ["export/train", "export/test"]:
        found = load(DatasetConfig(name="folder", path=str(path / "export")), seed=0, cache_dir=cache_dir)
        assert len(found.train) == 2


def test_parquet_files_beside_a_folder_without_images(
    image_folder: Callable[..., Path], tmp_path: Path, cache_dir: Path
) -> None:
    path = image_folder()
    for image in (path / "train").rglob("*.png"):
        image.rename(image.with_suffix(".txt"))
    part = two_images()
    for name in ("train", "test"):
        part.to_parquet(path / f"{name}.parquet")
    assert len(load(DatasetConfig(name="folder", path=str(path)), seed=0, cache_dir=cache_dir).train) == 2
