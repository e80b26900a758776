"""Data sets of the library `datasets` as they are: saved to disk, or handed over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

import flsplit
from flsplit.compose import compose
from flsplit.data import DataError, DatasetConfig, check, kept, load
from flsplit.errors import UserError
from flsplit.experiment.preparation import prepare

CONFIG = DatasetConfig(name="folder")
Pixels = dict[str, np.ndarray]


@pytest.fixture
def pixels(rng: np.random.Generator) -> Pixels:
    return {
        name: rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8) for name, count in (("train", 24), ("test", 9))
    }


def given(pixels: Pixels, *, image: str = "image", label: str = "label", test: str = "test") -> datasets.DatasetDict:
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=["ant", "bee", "cow"]),
                                  "site": datasets.Value("string")})  # fmt: skip
    parts = {
        {"train": "train", "test": test}[name]: datasets.Dataset.from_dict(
            {
                image: [Image.fromarray(one) for one in images],
                label: [row % 3 for row in range(len(images))],
                "site": [f"s{row % 2}" for row in range(len(images))],
            },
            features=features,
        )
        for name, images in pixels.items()
    }
    return datasets.DatasetDict(parts)


def saved(folder: Path, dataset: datasets.DatasetDict) -> DatasetConfig:
    dataset.save_to_disk(str(folder))
    return DatasetConfig(name="folder", path=str(folder))


def test_a_saved_data_set(pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    config = saved(tmp_path / "saved", given(pixels))
    check(config, columns=["site"])
    found = load(config, seed=0, columns=["site"], cache_dir=cache_dir)
    assert found.classes == ("ant", "bee", "cow")
    assert np.array_equal(found.train.pixels, pixels["train"]) and np.array_equal(found.test.pixels, pixels["test"])
    assert found.train.labels.tolist() == [0, 1, 2] * 8
    assert found.train.column("site").tolist() == ["s0", "s1"] * 12


@pytest.mark.filterwarnings("ignore:Downcasting array")
@pytest.mark.parametrize("kind", ["int64", "int32", "int16", "uint16", "uint8"])
def test_grey_images_of_whole_numbers(kind: str, pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    grey = {name: images[..., 0] for name, images in pixels.items()}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    parts = {
        name: datasets.Dataset.from_dict(
            {"image": list(images.astype(kind)), "label": [row % 2 for row in range(len(images))]}, features=features
        )
        for name, images in grey.items()
    }
    data = load(saved(tmp_path / "saved", datasets.DatasetDict(parts)), seed=0, cache_dir=cache_dir)
    assert np.array_equal(data.train.pixels, np.repeat(grey["train"][..., None], 3, 3))
    assert np.array_equal(data.test.pixels, np.repeat(grey["test"][..., None], 3, 3))


@pytest.mark.parametrize("side", [8, 80])
def test_the_mode_of_images_is_kept_to(side: int, tmp_path: Path, cache_dir: Path, rng: np.random.Generator) -> None:
    colour = {name: rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8) for name in ("train", "test")}
    dataset = given(colour)
    grey = dataset.cast_column("image", datasets.Image(mode="L"))
    places = [kept(given, cache_dir=cache_dir) for given in (dataset, grey)]
    assert places[0] != places[1]
    for part in grey:  # the same in Parquet files
        grey[part].to_parquet(tmp_path / f"{part}.parquet")
    for place in (places[1], tmp_path):
        found = load(DatasetConfig(name="folder", path=str(place)), seed=0, cache_dir=cache_dir)
        for row, image in enumerate(colour["train"]):
            expected = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
            assert np.array_equal(np.asarray(found.train.image(row)), expected)


def test_columns_are_found_by_their_kind(pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    config = saved(tmp_path / "saved", given(pixels, image="img", label="kind", test="validation"))
    assert load(config, seed=0, cache_dir=cache_dir).test.labels.tolist() == [0, 1, 2] * 3
    wrong = DatasetConfig(name="folder", path=config.path, label_column="fine")  # which the user has typed
    with pytest.raises(DataError, match=r"dataset\.label_column: .* no column 'fine', only img, kind, site"):
        load(wrong, seed=0, cache_dir=cache_dir)


def test_other_files_behind_the_same_path_are_another_table(pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    config = saved(tmp_path / "saved", given(pixels))
    first = load(config, seed=0, cache_dir=cache_dir)
    turned = {name: images[::-1].copy() for name, images in pixels.items()}
    for name in ("train", "test"):
        (tmp_path / "saved" / name / "data-00000-of-00001.arrow").unlink()
    given(turned).save_to_disk(str(tmp_path / "saved"))
    second = load(config, seed=0, cache_dir=cache_dir)
    assert np.array_equal(first.train.pixels, pixels["train"])
    assert np.array_equal(second.train.pixels, turned["train"])


def test_replaced_files_of_a_data_set_of_paths_are_another_table(
    pixels: Pixels, tmp_path: Path, cache_dir: Path
) -> None:
    files = {name: [str(tmp_path / f"{name}{row}.png") for row in range(len(pixels[name]))] for name in pixels}

    def served(images: Pixels) -> tuple[Path, np.ndarray]:
        for name, paths in files.items():
            for path, image in zip(paths, images[name]):
                Image.fromarray(image).save(path)
        parts = {
            name: datasets.Dataset.from_dict({"image": paths, "label": [row % 3 for row in range(len(paths))]})
            .cast_column("image", datasets.Image())
            .cast_column("label", datasets.ClassLabel(names=["ant", "bee", "cow"]))
            for name, paths in files.items()
        }
        place = kept(datasets.DatasetDict(parts), cache_dir=cache_dir)
        assert kept(datasets.DatasetDict(parts), cache_dir=cache_dir) == place
        found = load(DatasetConfig(name="folder", path=str(place)), seed=0, cache_dir=cache_dir)
        return place, np.concatenate([found.train.pixels, found.test.pixels])

    first, before = served(pixels)
    turned = {name: images[::-1].copy() for name, images in pixels.items()}
    second, after = served(turned)
    assert first != second
    for got, images in ((before, pixels), (after, turned)):
        assert np.array_equal(got, np.concatenate([images["train"], images["test"]]))


def mapped(folder: Path, where: str) -> datasets.DatasetDict:
    """Six images of a level that is read from `folder`, in memory or in one file of the cache of `datasets`."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})

    def read(row: dict[str, Any]) -> dict[str, Any]:
        level = int((folder / "level").read_text())
        return {"image": Image.new("L", (8, 8), level), "label": row["label"]}

    rows = datasets.Dataset.from_dict({"label": [0, 1] * 3})
    if where == "disk":
        if not (folder / "rows").exists():
            rows.save_to_disk(str(folder / "rows"))
        rows = datasets.Dataset.load_from_disk(str(folder / "rows"))
    made = rows.map(read, features=features, load_from_cache_file=False)
    assert bool(made.cache_files) is (where == "disk")
    return datasets.DatasetDict(train=made.select(range(4)), test=made.select(range(4, 6)))


def levels(dataset: datasets.DatasetDict, cache_dir: Path) -> set[int]:
    """Of all pixels that a run with this data set would see."""
    place = kept(dataset, cache_dir=cache_dir)
    found = load(DatasetConfig(name="folder", path=str(place)), seed=0, cache_dir=cache_dir)
    return {int(level) for table in (found.train, found.test) for level in np.unique(table.pixels)}


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_one_function_that_reads_other_images(where: str, tmp_path: Path, cache_dir: Path) -> None:
    made = {}
    for level in (7, 9):
        (tmp_path / "level").write_text(str(level))
        made[level] = mapped(tmp_path, where)
        assert levels(made[level], cache_dir) == {level}
    assert len({split["train"]._fingerprint for split in made.values()}) == 1  # which would not tell them apart
    assert [levels(made[level], tmp_path / "later") for level in (9, 7)] == [{9}, {7}]  # one file, two contents


def test_rows_that_are_chosen_at_random(pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    whole = datasets.DatasetDict.load_from_disk(str(saved(tmp_path / "saved", given(pixels)).path))
    chosen: set[int] = set()

    def choose(row: dict[str, Any], number: int) -> bool:
        return number in chosen

    for chosen in ({1, 5}, {2, 3, 4}, {0, 23}):
        train = whole["train"].filter(choose, with_indices=True, keep_in_memory=True, new_fingerprint="same")
        place = kept(datasets.DatasetDict(train=train, test=whole["test"]), cache_dir=cache_dir)
        found = datasets.Dataset.load_from_disk(str(place / "train"))
        assert np.array_equal([np.asarray(image) for image in found["image"]], pixels["train"][sorted(chosen)])


def test_equal_content_is_kept_once(
    pixels: Pixels, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept(given(pixels), cache_dir=cache_dir)
    table = load(DatasetConfig(name="folder", path=str(first)), seed=0, cache_dir=cache_dir).path
    on_disk = datasets.DatasetDict.load_from_disk(str(saved(tmp_path / "saved", given(pixels)).path))
    turned, in_parts, twice_turned = datasets.DatasetDict(), datasets.DatasetDict(), datasets.DatasetDict()
    for name, part in given(pixels).items():
        backwards = range(len(part) - 1, -1, -1)
        turned[name] = part.select(backwards)
        twice_turned[name] = turned[name].select(backwards)
        in_parts[name] = datasets.concatenate_datasets([part.select(range(3)), part.select(range(3, len(part)))])
    monkeypatch.delattr("flsplit.data.sources.arrow.save")
    for same in (given(pixels), on_disk, in_parts, twice_turned):
        assert kept(same, cache_dir=cache_dir) == first
    assert load(DatasetConfig(name="folder", path=str(first)), seed=0, cache_dir=cache_dir).path == table
    with pytest.raises(AttributeError, match="save"):
        kept(turned, cache_dir=cache_dir)


def of_paths(folder: Path, pixels: Pixels) -> datasets.DatasetDict:
    """Images by the names of their files in `folder`, such as test3.png."""
    features = given(pixels)["train"].features
    parts = {}
    for name, images in pixels.items():
        files = [folder / f"{name}{row}.png" for row in range(len(images))]
        for file, image in zip(files, images):
            Image.fromarray(image).save(file)
        rows = {"image": list(map(str, files)), "label": [row % 3 for row in range(len(images))],
                "site": ["a"] * len(images)}  # fmt: skip
        parts[name] = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict(parts)


def without_bytes(path: Path, dataset: datasets.DatasetDict) -> DatasetConfig:
    """What `save_to_disk` leaves of images by name, but for the bytes, which it fetches."""
    import pyarrow

    config = saved(path, dataset)
    for name, split in dataset.items():
        [file] = (path / name).glob("*.arrow")
        rows = split.data.table
        with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
    return config


def test_replaced_files_of_a_saved_data_set_of_paths_are_another_table(
    pixels: Pixels, tmp_path: Path, cache_dir: Path
) -> None:
    config = without_bytes(tmp_path / "saved", of_paths(tmp_path, pixels))
    first = load(config, seed=0, cache_dir=cache_dir)
    assert np.array_equal(first.train.pixels, pixels["train"])
    assert load(config, seed=0, cache_dir=cache_dir).path == first.path
    other = pixels["train"][5] ^ 255
    Image.fromarray(other).save(tmp_path / "train5.png")
    assert np.array_equal(load(config, seed=0, cache_dir=cache_dir).train.pixels[5], other)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", ["removed", "a folder"])
def test_an_image_that_is_not_where_its_path_says_is_named(
    damage: str, split: str, pixels: Pixels, tmp_path: Path, cache_dir: Path
) -> None:
    dataset = of_paths(tmp_path, pixels)
    config = without_bytes(tmp_path / "saved", dataset)
    file = tmp_path / f"{split}3.png"
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    reason = "is not there" if damage == "removed" else "cannot be read"
    with pytest.raises(UserError, match=rf"^dataset: the split '{split}' names an image in {file}, which {reason}$"):
        flsplit.run(["engine=inline", f"out={tmp_path}/run"], dataset=dataset)
    told = f"^dataset=folder: the split to {split} on: image 3 cannot be read from {file} "
    with pytest.raises(DataError, match=told):
        load(config, seed=0, cache_dir=cache_dir)
    assert not (tmp_path / "run").exists() and list(cache_dir.iterdir()) == []


def test_an_image_that_is_not_chosen_need_not_be_there(pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    dataset = of_paths(tmp_path, pixels)
    (tmp_path / "train3.png").unlink()
    dataset["train"] = dataset["train"].select([*range(3), *range(4, 24)])
    place = kept(dataset, cache_dir=cache_dir)
    found = load(DatasetConfig(name="folder", path=str(place)), seed=0, cache_dir=cache_dir)
    assert np.array_equal(found.train.pixels, np.delete(pixels["train"], 3, axis=0))


FORMATS: list[dict[str, Any]] = [{"type": "pandas"}, {"type": "arrow"}, {"type": "numpy"}, {"columns": ["label"]}]


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_format_changes_nothing(form: dict[str, Any], pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    dataset = given(pixels).with_format(**form)
    path = kept(dataset, cache_dir=cache_dir)
    for config in (DatasetConfig(name="folder", path=str(path)), saved(tmp_path / "saved", dataset)):
        found = load(config, seed=0, columns=["site"], cache_dir=cache_dir)
        assert np.array_equal(found.train.pixels, pixels["train"]) and np.array_equal(found.test.pixels, pixels["test"])
        assert found.train.column("site").tolist() == ["s0", "s1"] * 12


def test_a_transform_is_refused(pixels: Pixels, cache_dir: Path) -> None:
    for changed in (given(pixels).with_transform(dict), given(pixels).with_format("custom", transform=dict)):
        with pytest.raises(DataError, match=r"^dataset: the split 'train' has a transform, .* apply it with map"):
            kept(changed, cache_dir=cache_dir)
    assert not cache_dir.exists()


@pytest.mark.slow
def test_a_data_set_in_memory(pixels: Pixels, tmp_path: Path) -> None:
    keys = ["engine=inline", "clients=2", "rounds=1", "batch_size=6", "partition=column", "partition.column=site",
            "augment=none"]  # fmt: skip
    run = flsplit.run([*keys, f"out={tmp_path}/given"], dataset=given(pixels))
    config = saved(tmp_path / "saved", given(pixels))
    again = flsplit.run([*keys, "dataset=folder", f"dataset.path={config.path}", f"out={tmp_path}/again"])
    assert run.rounds.train_loss.tolist() == again.rounds.train_loss.tolist()
    assert len(flsplit.run([f"resume={tmp_path}/given", "rounds=2"]).rounds) == 2


def test_what_is_wrong_with_a_data_set_in_memory_names_the_argument(pixels: Pixels) -> None:
    train = given(pixels)["train"]
    with pytest.raises(UserError, match=r"^dataset must be a DatasetDict with train and test, got Dataset$"):
        flsplit.run(dataset=train)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^the DatasetDict given as dataset has no split 'test', only train$"):
        flsplit.run(["engine=inline"], dataset=datasets.DatasetDict(train=train))


def test_another_split_that_is_tested_on_is_noted(pixels: Pixels, tmp_path: Path) -> None:
    config = saved(tmp_path / "saved", given(pixels, test="validation"))
    keys = [f"dataset.path={config.path}", "dataset=folder", "augment=none", "clients=2", f"out={tmp_path}/run"]
    assert prepare(compose(keys)).notes == ["dataset=folder: tested on validation, there is no test"]
    assert prepare(compose([*keys, "dataset.test_split=validation"])).notes == []


@pytest.mark.parametrize("stray", ["dataset_info.json", "state.json"])
@pytest.mark.parametrize("form", ["class folders", "parquet"])
def test_a_stray_file_makes_no_saved_data_set(
    form: str, stray: str, pixels: Pixels, tmp_path: Path, cache_dir: Path
) -> None:
    path = tmp_path / "images"
    for split, part in given(pixels).items():
        for row, image in enumerate(pixels[split] if form == "class folders" else ()):
            folder = path / split / ("ant", "bee", "cow")[row % 3]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{row}.png")
        if form == "parquet":
            part.to_parquet(path / f"{split}.parquet")
    (path / stray).write_text("{}")
    config = DatasetConfig(name="folder", path=str(path))
    check(config)
    found = load(config, seed=0, cache_dir=cache_dir)
    assert found.classes == ("ant", "bee", "cow") and len(found.train) == 24


def test_what_is_wrong_is_one_line(pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    dataset = given(pixels)
    dataset["train"].save_to_disk(str(tmp_path / "lone"))
    with pytest.raises(DataError, match="is one saved Dataset; save a DatasetDict with train and test"):
        check(DatasetConfig(name="folder", path=str(tmp_path / "lone")))
    config = saved(tmp_path / "saved", datasets.DatasetDict(train=dataset["train"]))
    with pytest.raises(DataError, match="has no split 'test', only train"):
        check(config)
    whole = saved(tmp_path / "whole", dataset)
    for splits in ({"test_split": "foo"}, {"train_split": "test", "test_split": "foo"}):
        with pytest.raises(DataError, match="has no split 'foo', only train, test"):
            check(replace(whole, **splits))
    validation = saved(tmp_path / "validation", given(pixels, test="validation"))
    with pytest.raises(DataError, match="has no split 'test', only train, validation"):
        check(replace(validation, train_split="validation"))
    [file] = (tmp_path / "whole" / "train").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"dataset\.path: .* cannot be read") as caught:
        load(whole, seed=0, cache_dir=cache_dir)
    assert "\n" not in str(caught.value)
    (tmp_path / "whole" / "dataset_dict.json").write_text(json.dumps({"parts": []}))
    with pytest.raises(DataError, match=r"dataset_dict\.json is damaged"):
        check(whole)


def renamed(dataset: datasets.DatasetDict, split: str, feature: object) -> datasets.DatasetDict:
    """The same with another feature of labels in one split."""
    return datasets.DatasetDict({**dataset, split: dataset[split].cast_column("label", feature)})


@pytest.mark.parametrize("names", [["bee", "ant", "cow"], ["bee", "cow", "dog"]])
def test_a_test_split_with_other_names_is_refused(
    names: list[str], pixels: Pixels, tmp_path: Path, cache_dir: Path
) -> None:
    plain = renamed(given(pixels), "test", datasets.Value("int64"))  # cast by number, not by name
    config = saved(tmp_path / "saved", renamed(plain, "test", datasets.ClassLabel(names=names)))
    with pytest.raises(DataError, match="the label 0 is 'ant' in the split to train on, but 'bee' in the split to"):
        load(config, seed=0, cache_dir=cache_dir)


@pytest.mark.parametrize("without", [["test"], ["train"], ["train", "test"]])
def test_a_split_without_names_is_taken_as_the_other(
    without: list[str], pixels: Pixels, tmp_path: Path, cache_dir: Path
) -> None:
    dataset = given(pixels)
    for split in without:
        dataset = renamed(dataset, split, datasets.Value("int64"))
    found = load(saved(tmp_path / "saved", dataset), seed=0, cache_dir=cache_dir)
    assert found.classes == (("0", "1", "2") if len(without) == 2 else ("ant", "bee", "cow"))
    assert found.train.labels.tolist() == [0, 1, 2] * 8


@pytest.mark.parametrize(("split", "told"), [("train", "the split to train on"), ("test", "the split to test on")])
@pytest.mark.parametrize(("column", "what"), [("image", "an image"), ("label", "a label")])
def test_a_row_without_an_image_or_a_label_is_named(
    column: str, what: str, split: str, told: str, pixels: Pixels, tmp_path: Path, cache_dir: Path
) -> None:
    dataset = given(pixels)
    values = dataset[split][:][column]
    dataset[split] = datasets.Dataset.from_dict(
        {**dataset[split][:], column: [*values[:5], None, *values[6:]]}, features=dataset[split].features
    )
    config = saved(tmp_path / "saved", dataset)
    with pytest.raises(DataError, match=f"dataset=folder: {told}: row 5 is without {what} in the column '{column}'"):
        load(config, seed=0, cache_dir=cache_dir)


def test_labels_that_are_none(pixels: Pixels, tmp_path: Path, cache_dir: Path) -> None:
    config = saved(tmp_path / "saved", given(pixels))
    text = DatasetConfig(name="folder", path=config.path, label_column="site")
    with pytest.raises(DataError, match="labels of type"):
        load(text, seed=0, cache_dir=cache_dir)
    swapped = DatasetConfig(name="folder", path=config.path, image_column="site")
    with pytest.raises(DataError, match="the column 'site' holds no images"):
        load(swapped, seed=0, cache_dir=cache_dir)
