import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as F

from flsplit.data.augment import Draws, draw, operations, paper
from flsplit.data.augment_batch import paper_batch

# torchvision's own operations by name: what RandAugment documents for magnitude 9 of 31 bins.
SHARE = 9 / 30
REFERENCE: dict[str, tuple[Callable[..., Image.Image], bool]] = {
    "Identity": (lambda image, sign: image, False),
    "ShearX": (
        lambda image, sign: affine(image, shear=[degrees(sign * 0.3 * SHARE), 0.0], center=[0, 0]),
        True,
    ),
    "ShearY": (
        lambda image, sign: affine(image, shear=[0.0, degrees(sign * 0.3 * SHARE)], center=[0, 0]),
        True,
    ),
    "TranslateX": (lambda image, sign: affine(image, translate=[int(sign * shift(image.width)), 0]), True),
    "TranslateY": (lambda image, sign: affine(image, translate=[0, int(sign * shift(image.height))]), True),
    "Rotate": (lambda image, sign: F.rotate(image, sign * 30.0 * SHARE), True),
    "Brightness": (lambda image, sign: F.adjust_brightness(image, 1 + sign * 0.9 * SHARE), True),
    "Color": (lambda image, sign: F.adjust_saturation(image, 1 + sign * 0.9 * SHARE), True),
    "Contrast": (lambda image, sign: F.adjust_contrast(image, 1 + sign * 0.9 * SHARE), True),
    "Sharpness": (lambda image, sign: F.adjust_sharpness(image, 1 + sign * 0.9 * SHARE), True),
    "Posterize": (lambda image, sign: F.posterize(image, 8 - round(9 / 7.5)), False),
    "Solarize": (lambda image, sign: F.solarize(image, 255 * (1 - SHARE)), False),
    "AutoContrast": (lambda image, sign: F.autocontrast(image), False),
    "Equalize": (lambda image, sign: F.equalize(image), False),
}
NAMES = list(REFERENCE)
JITTERS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


def affine(image: Image.Image, **options: object) -> Image.Image:
    return F.affine(image, **{"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | options)


def degrees(slope: float) -> float:
    return float(np.degrees(np.arctan(slope)))


def shift(side: int) -> float:
    return 150 / 331 * side * SHARE


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.integers(-20, 20, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def draws(ops: tuple[int, int], negative: tuple[bool, bool], order: list[int], factors: list[float]) -> Draws:
    return Draws(np.array([ops]), np.array([negative]), np.array([order]), np.array([factors]), np.array([False]))


def batched(images: list[Image.Image], numbers: Draws) -> np.ndarray:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    return paper_batch(pixels, numbers).permute(0, 2, 3, 1).numpy()


def by_one(images: list[Image.Image], numbers: Draws) -> np.ndarray:
    return np.stack([np.asarray(paper(image, numbers, index)) for index, image in enumerate(images)])


@pytest.mark.parametrize("size", [(32, 32), (45, 30)])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_is_torchvisions(name: str, negative: bool, size: tuple[int, int]) -> None:
    image = picture(1, size)
    one = draws((NAMES.index(name), 0), (negative, False), [0, 1, 2], [1.0, 1.0, 1.0])
    function, signed = REFERENCE[name]
    expected = function(image, -1 if negative and signed else 1)
    assert np.array_equal(np.asarray(paper(image, one, 0)), np.asarray(expected))
    if name not in {"Identity", "AutoContrast"}:
        assert not np.array_equal(np.asarray(expected), np.asarray(image))


def test_the_operations_are_randaugments() -> None:
    assert [name for name, _, _ in operations(32, 32)] == NAMES
    assert [signed for _, _, signed in operations(32, 32)] == [signed for _, signed in REFERENCE.values()]
    assert operations(64, 32)[NAMES.index("TranslateY")][1] == pytest.approx(shift(64))


def test_a_whole_transform_in_its_order() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = draw(60, generator)
    for index in range(60):
        image = expected = picture(index, (33, 28))
        for op, negative in zip(batch.ops[index], batch.negative[index]):
            function, signed = REFERENCE[NAMES[op]]
            expected = function(expected, -1 if negative and signed else 1)
        for kind in batch.order[index]:
            expected = JITTERS[kind](expected, batch.factors[index, kind])
        assert np.array_equal(np.asarray(paper(image, batch, index)), np.asarray(expected))


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_operation_is_the_same_to_the_bit(name: str, negative: bool) -> None:
    for size in ((32, 32), (20, 31), (8, 8)):
        images = [picture(seed, size) for seed in range(20)]
        images.append(Image.new("RGB", size, (7, 7, 200)))  # nothing to stretch or to equalise
        images.append(Image.fromarray((np.asarray(images[0]) > 100).astype(np.uint8) * 9))
        count = len(images)
        numbers = Draws(
            np.full((count, 2), [NAMES.index(name), 0]),
            np.full((count, 2), negative),
            np.tile([0, 1, 2], (count, 1)),
            np.ones((count, 3)),
            np.zeros(count, bool),
        )
        assert np.array_equal(batched(images, numbers), by_one(images, numbers))


@pytest.mark.some
@pytest.mark.parametrize("size", [(32, 32), (20, 31), (3, 3)])
def test_a_batch_is_the_same_to_the_bit(size: tuple[int, int]) -> None:
    images = [picture(seed, size) for seed in range(600)]
    numbers = draw(600, torch.Generator().manual_seed(1))
    assert np.array_equal(batched(images, numbers), by_one(images, numbers))


def test_several_steps_joined_are_the_same() -> None:
    images = [picture(seed, (32, 32)) for seed in range(30)]
    parts = [draw(size, torch.Generator().manual_seed(size)) for size in (10, 1, 19)]
    apart = np.concatenate([batched(images[a:b], part) for part, a, b in zip(parts, (0, 10, 11), (10, 11, 30))])
    assert np.array_equal(batched(images, Draws.joined(parts)), apart)


def test_the_draws_are_distributed_as_torchvisions() -> None:
    batch = draw(20_000, torch.Generator().manual_seed(0))
    assert (np.abs(np.bincount(batch.ops.ravel(), minlength=14) / 40_000 - 1 / 14) < 0.01).all()
    assert abs(batch.negative.mean() - 0.5) < 0.01
    assert abs(batch.flip.mean() - 0.5) < 0.02
    orders, counts = np.unique(batch.order, axis=0, return_counts=True)
    assert len(orders) == 6
    assert (np.abs(counts / 20_000 - 1 / 6) < 0.02).all()
    assert 0.6 <= batch.factors.min() < 0.601
    assert 1.399 < batch.factors.max() <= 1.4
    assert np.abs(batch.factors.mean(0) - 1).max() < 0.01
    assert np.abs(np.corrcoef(batch.factors.T) - np.eye(3)).max() < 0.03


def test_the_global_generators_play_no_part() -> None:
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    batch = draw(5, torch.Generator().manual_seed(3))
    first = [np.asarray(paper(picture(i, (32, 32)), batch, i)) for i in range(5)]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    torch.manual_seed(2)
    again = draw(5, torch.Generator().manual_seed(3))
    assert all(np.array_equal(one, paper(picture(i, (32, 32)), again, i)) for i, one in enumerate(first))


@pytest.mark.slow
def test_statistics_match_torchvisions_random_transform() -> None:
    """Averaged over many draws the transform changes an image as RandAugment and ColorJitter do."""
    image = picture(0, (32, 32))
    theirs = transforms.Compose([transforms.RandAugment(2, 9), transforms.ColorJitter(0.4, 0.4, 0.4)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = np.stack([np.asarray(theirs(image), float) for _ in range(3000)])
    batch = draw(3000, torch.Generator().manual_seed(0))
    ours = np.stack([np.asarray(paper(image, batch, i), float) for i in range(3000)])
    assert np.abs(ours.mean(0) - reference.mean(0)).mean() < 2.5
    assert np.abs(ours.std(0) - reference.std(0)).mean() < 2.5
