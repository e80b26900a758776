from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flsplit.compose import compose
from flsplit.data import DataError, DatasetConfig, check, load
from flsplit.experiment.preparation import prepare

Make = Callable[..., Path]
Config = Callable[..., DatasetConfig]


def refused(config: DatasetConfig, cache_dir: Path, *parts: str, at_check: bool = True) -> None:
    """Both `check` and `load` refuse with one line that holds `parts`, and leave nothing behind."""
    for call in [lambda: check(config)] * at_check + [lambda: load(config, seed=0, cache_dir=cache_dir)]:
        with pytest.raises(DataError) as caught:
            call()
        assert all(part in str(caught.value) for part in parts), caught.value
        assert "\n" not in str(caught.value)
    assert not cache_dir.exists() or list(cache_dir.iterdir()) == []


def test_small_images_of_one_size_become_pixels(image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder((12, 9))
    check(folder_config(path))
    data = load(folder_config(path), seed=0, cache_dir=cache_dir)
    assert data.classes == ("cat", "dog")
    assert data.train.uniform
    assert data.train.pixels.shape == (6, 9, 12, 3)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with Image.open(path / "train" / "dog" / "1.png") as image:
        assert np.array_equal(np.asarray(image), data.train.pixels[4])
    with pytest.raises(AttributeError):
        data.train.encoded(0)
    assert not list(data.path.glob("*.blob"))


@pytest.mark.parametrize("size", [(65, 20), (20, 65)])
def test_larger_images_stay_encoded(
    size: tuple[int, int], image_folder: Make, folder_config: Config, cache_dir: Path
) -> None:
    path = image_folder(size, extension="jpg")
    data = load(folder_config(path), seed=0, cache_dir=cache_dir)
    assert not data.train.uniform
    assert data.train.encoded(2) == (path / "train" / "cat" / "2.jpg").read_bytes()
    assert data.test.encoded(3) == (path / "test" / "dog" / "1.jpg").read_bytes()
    with Image.open(path / "train" / "cat" / "2.jpg") as image:
        assert np.array_equal(np.asarray(image), np.asarray(data.train.image(2)))
    with pytest.raises(AttributeError, match="many sizes"):
        _ = data.train.pixels
    assert not list(data.path.glob("*.pixels.npy"))


def test_images_of_many_small_sizes_stay_encoded(
    image_folder: Make, folder_config: Config, save_image: Make, cache_dir: Path
) -> None:
    path = image_folder((8, 8))
    save_image(path / "train" / "dog" / "9.png", (8, 9))
    data = load(folder_config(path), seed=0, cache_dir=cache_dir)
    assert not data.train.uniform
    assert data.test.uniform
    assert [data.train.image(i).size for i in range(7)] == [(8, 8)] * 6 + [(8, 9)]


@pytest.mark.parametrize(
    "extension", ["jpg", "JPEG", "jfif", "png", "PNG", "bmp", "WebP", "gif", "TIF", "tiff", "ppm", "pgm"]
)
def test_extensions(
    extension: str, image_folder: Make, folder_config: Config, save_image: Make, cache_dir: Path
) -> None:
    path = image_folder()
    mode = "L" if extension == "pgm" else "RGB"
    added = save_image(path / "test" / "cat" / "deeply" / "nested" / f"x.{extension}", mode=mode)
    data = load(folder_config(path), seed=0, cache_dir=cache_dir)
    assert len(data.test) == 5
    with Image.open(added) as image:
        expected = np.asarray(image.convert("RGB"))
    assert any(np.array_equal(expected, data.test.image(i)) for i in range(5))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_other_modes_become_rgb(mode: str, image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder()
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
        assert image.mode == mode
    else:
        image = Image.fromarray(ramp).convert("RGB" if mode == "CMYK" else "L").convert(mode)
    image.save(path / "train" / "cat" / ("0.jpg" if mode == "CMYK" else "0.png"), quality=100)
    if mode == "CMYK":
        (path / "train" / "cat" / "0.png").unlink()
    served = np.asarray(load(folder_config(path), seed=0, cache_dir=cache_dir).train.image(0)).astype(int)
    assert served.shape == (8, 8, 3)
    expected = np.asarray(image.convert("L")) if mode == "1" else ramp
    assert np.abs(served - expected[..., None].astype(int)).max() <= (3 if mode == "CMYK" else 0)


RAMP = np.linspace(0, 255, 64).round().astype(np.int32).reshape(8, 8)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, ">u2"])
@pytest.mark.parametrize("dark", [False, True])
def test_grey_levels_in_more_bits_than_they_need(
    dark: bool, kind: object, image_folder: Make, folder_config: Config, cache_dir: Path
) -> None:
    path = image_folder((8, 8))
    levels = [RAMP, RAMP // 2, RAMP * 257 if dark else RAMP // 3]
    files = [*(path / "train" / "cat" / f"{number}.png" for number in range(3)), path / "test" / "cat" / "0.png"]
    for file, level in zip(files, [*levels, RAMP // 5]):
        Image.fromarray(level.astype(kind)).save(file, "TIFF")
    data = load(folder_config(path), seed=0, cache_dir=cache_dir)
    served = [*data.train.pixels[:3], data.test.pixels[0]]
    for got, level in zip(served, [*levels, RAMP // 5]):  # beside a 16-bit image the others are dark
        assert np.array_equal(got, np.repeat((level >> 8 * dark)[..., None], 3, 2))


def test_large_grey_images_are_kept_in_8_bits(image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path, levels = image_folder((90, 70)), np.arange(80 * 80, dtype=np.int32).reshape(80, 80) % 256
    Image.fromarray(levels).save(path / "train" / "cat" / "0.png", "TIFF")
    Image.fromarray(levels << 8).save(path / "train" / "cat" / "1.png", "TIFF")
    data = load(folder_config(path), seed=0, cache_dir=cache_dir)
    assert not np.asarray(data.train.image(0)).any()
    assert np.array_equal(np.asarray(data.train.image(1))[..., 0], levels)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (RAMP - 3, "its levels go from -3 to 252; save whole numbers of 8 bits (0-255) or 16 (0-65535)"),
        (RAMP * 258, "its levels go from 0 to 65790; save whole numbers"),
        ((RAMP / 255).astype(np.float32), "its levels are floats; save whole numbers of 8 or 16 bits"),
    ],
)
def test_levels_that_would_be_lost_are_refused(
    levels: np.ndarray, message: str, image_folder: Make, folder_config: Config, cache_dir: Path
) -> None:
    path = image_folder()
    Image.fromarray(levels).save(path / "train" / "cat" / "1.png", "TIFF")
    refused(folder_config(path), cache_dir, f"1.png cannot be read as an image ({message}", at_check=False)


def test_test_images_of_more_bits_are_refused(image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder()
    Image.fromarray(RAMP).save(path / "train" / "cat" / "1.png", "TIFF")
    Image.fromarray(RAMP * 257).save(path / "test" / "cat" / "1.png", "TIFF")
    refused(folder_config(path), cache_dir, "1.png", "of 16 bits, those of the training images of 8", at_check=False)


def test_photographs_are_turned_upright(image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder()
    wide = Image.new("RGB", (100, 50))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide.save(path / "train" / "cat" / "0.png", exif=exif)
    assert load(folder_config(path), seed=0, cache_dir=cache_dir).train.image(0).size == (50, 100)


def test_hidden_and_foreign_files_are_ignored(
    image_folder: Make, folder_config: Config, save_image: Make, cache_dir: Path
) -> None:
    path = image_folder()
    save_image(path / "train" / "cat" / ".hidden.png")
    save_image(path / "train" / "cat" / ".thumbs" / "a.png")
    save_image(path / "train" / ".checkpoints" / "a.png")
    save_image(path / "train" / "no_class.png")
    (path / "train" / "cat" / "notes.txt").write_text("no image")
    data = load(folder_config(path), seed=0, cache_dir=cache_dir)
    assert (len(data.train), data.classes) == (6, ("cat", "dog"))


def test_files_that_are_passed_over_are_noted(image_folder: Make, tmp_path: Path) -> None:
    path = image_folder()
    keys = ["dataset=folder", f"dataset.path={path}", "augment=none", "clients=2", f"out={tmp_path}/run"]
    for name in ("metadata.csv", "cat/metadata.csv", "cat/.DS_Store"):  # none of these is meant as an image
        (path / "train" / name).touch()
    assert prepare(compose(keys)).notes == []
    for name in ("train/cat/a.avif", "train/dog/deep/b.AVIF", "test/dog/notes.txt", "test/dog/c"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).touch()
    said = "dataset.path: files that are not taken for images by the ending of their names: 2 .avif, "
    assert prepare(compose(keys)).notes == [f"{said}1 without an ending, 1 .txt"]


def test_a_size_that_nobody_chose_is_noted(image_folder: Make, save_image: Make, tmp_path: Path) -> None:
    path = image_folder((8, 12))
    keys = ["dataset=folder", f"dataset.path={path}", "augment=none", "clients=2", f"out={tmp_path}/run"]

    def noted(*more: str) -> list[str]:
        return prepare(compose([*keys, *more])).notes

    said = "images that are not {0}x{0} px are resized to it; model.image_size=PIXELS takes another size"
    assert noted() == [said.format(12)]
    save_image(path / "train" / "cat" / "0.png", (100, 80))
    assert noted() == [said.format(64)] and noted("model.image_size=16") == []


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_other_names_of_the_test_folder(name: str, image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder()
    (path / "test").rename(path / name)
    assert len(load(folder_config(path), seed=0, cache_dir=cache_dir).test) == 4


def test_test_is_preferred_to_val(image_folder: Make, folder_config: Config, save_image: Make, cache_dir: Path) -> None:
    path = image_folder()
    save_image(path / "val" / "cat" / "0.png")
    assert len(load(folder_config(path), seed=0, cache_dir=cache_dir).test) == 4


@pytest.mark.parametrize(("extension", "kind"), [("jpg", "JPEG"), ("png", "PNG")])
def test_max_side_shrinks_once(
    extension: str, kind: str, image_folder: Make, folder_config: Config, save_image: Make, cache_dir: Path
) -> None:
    path = image_folder((300, 200), extension=extension)
    small = save_image(path / "test" / "cat" / f"9.{extension}", (70, 100))
    data = load(folder_config(path, max_side=100), seed=0, cache_dir=cache_dir)
    assert data.train.image(0).size == (100, 67)
    assert data.test.encoded(2) == small.read_bytes()
    with Image.open(path / "train" / "cat" / f"0.{extension}") as image:
        expected = image.convert("RGB").resize((100, 67), Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(data.train.image(0)).astype(int) - np.asarray(expected))
    assert difference.mean() <= (5 if kind == "JPEG" else 0)  # noise is what JPEG keeps worst
    assert data.train.encoded(0)[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0")
    assert (data.train.encoded(0)[:4] == b"\x89PNG") == (kind == "PNG")


def test_max_side_can_make_a_pixel_table(image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    data = load(folder_config(image_folder((300, 300)), max_side=32), seed=0, cache_dir=cache_dir)
    assert data.train.pixels.shape == (6, 32, 32, 3)


def test_limits_take_a_part_of_a_folder(image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder((80, 80), train=10)
    data = load(folder_config(path, train_limit=6), seed=0, cache_dir=cache_dir)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    names = [
        next(f for f in sorted((path / "train").rglob("*.png")) if f.read_bytes() == data.train.encoded(i))
        for i in range(6)
    ]
    assert names == sorted(names)
    assert [name.parent.name for name in names] == ["cat"] * 3 + ["dog"] * 3


def test_no_such_folder(folder_config: Config, tmp_path: Path, cache_dir: Path) -> None:
    refused(folder_config(tmp_path / "nowhere"), cache_dir, "dataset.path: no such folder", "nowhere")
    (tmp_path / "file").write_text("")
    refused(folder_config(tmp_path / "file"), cache_dir, "dataset.path: not a folder")
    refused(DatasetConfig(name="folder"), cache_dir, "dataset=folder needs dataset.path=FOLDER")


def test_nothing_of_use_in_the_folder(folder_config: Config, tmp_path: Path, cache_dir: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(folder_config(tmp_path / "empty"), cache_dir, "train-*.parquet", "train/CLASS/*")


def test_no_test_folder(image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder()
    (path / "test").rename(path / "other")
    refused(folder_config(path), cache_dir, "dataset.path", "test/CLASS/*")


@pytest.mark.parametrize(
    ("splits", "missing", "there"),
    [({"test_split": "foo"}, "foo/", "test/, train/, validation/"), ({"train_split": "validation"}, "test/", "train/")],
)
def test_no_other_split_is_tested_on(
    splits: dict[str, str], missing: str, there: str,
    image_folder: Make, folder_config: Config, save_image: Make, cache_dir: Path,
) -> None:  # fmt: skip
    path = image_folder()
    save_image(path / "validation" / "cat" / "0.png")
    if "train_split" in splits:
        (path / "test").rename(path / "old")
    said = f"has no {missing} to test on, only "
    refused(folder_config(path, **splits), cache_dir, "dataset.path: ", said, there, "dataset.test_split")


def test_images_without_class_folders(folder_config: Config, save_image: Make, tmp_path: Path, cache_dir: Path) -> None:
    save_image(tmp_path / "flat" / "train" / "a.png")
    save_image(tmp_path / "flat" / "test" / "a.png")
    refused(folder_config(tmp_path / "flat"), cache_dir, "no images in", "train/CLASS/*")


def test_a_class_without_images(image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder()
    (path / "train" / "empty").mkdir()
    refused(folder_config(path), cache_dir, "dataset.path: no images in", "empty")


def test_a_test_class_unknown_in_train(
    image_folder: Make, folder_config: Config, save_image: Make, cache_dir: Path
) -> None:
    path = image_folder()
    save_image(path / "test" / "bird" / "0.png")
    refused(folder_config(path), cache_dir, "'bird'", "train/")


@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_a_broken_image_is_named(damage: str, image_folder: Make, folder_config: Config, cache_dir: Path) -> None:
    path = image_folder((80, 80))
    broken = path / "test" / "dog" / "1.png"
    whole = broken.read_bytes()
    broken.write_bytes({"text": b"no image", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    refused(folder_config(path), cache_dir, str(broken), "cannot be read as an image", at_check=False)
