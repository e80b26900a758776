import numpy as np
import pytest
import torch
from PIL import Image

from flsplit.data.resize import resize, resize_exactly, weights


def pictures(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, height, width, 3), dtype=np.uint8))


def by_pillow(pixels: torch.Tensor, size: int) -> torch.Tensor:
    small = [Image.fromarray(image.numpy()).resize((size, size), Image.Resampling.BILINEAR) for image in pixels]
    return torch.from_numpy(np.stack([np.asarray(image) for image in small])).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [7, 16, 24, 32, 48, 64, 96, 100, 224, 300])
@pytest.mark.parametrize("shape", [(32, 32), (28, 40), (8, 8), (40, 28), (64, 17), (300, 200), (200, 300)])
def test_matrix_products_are_pillow_to_the_bit(shape: tuple[int, int], size: int) -> None:
    pixels = pictures(*shape)
    assert torch.equal(resize_exactly(pixels.permute(0, 3, 1, 2), size), by_pillow(pixels, size).double())


@pytest.mark.parametrize("size", [16, 24, 224])
@pytest.mark.parametrize("shape", [(20, 24), (24, 20), (24, 16), (17, 33), (64, 48), (300, 200), (30, 30), (64, 64)])
def test_on_the_cpu_it_is_pillow_to_the_bit(shape: tuple[int, int], size: int) -> None:
    pixels = pictures(*shape)
    resized = resize(pixels.permute(0, 3, 1, 2), size)
    assert torch.equal(resized, by_pillow(pixels, size))
    grey = resize(pixels[..., :1].permute(0, 3, 1, 2), size)
    assert torch.equal(grey, resized[:, :1])


@pytest.mark.parametrize("size", [16, 32, 48, 64, 96, 224])
def test_on_the_cpu_it_is_pillow(size: int) -> None:
    pixels = pictures(32, 32)
    resized = resize(pixels.permute(0, 3, 1, 2), size)
    difference = (resized.int() - by_pillow(pixels, size).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.001


@pytest.mark.parametrize(("old", "new"), [(32, 96), (96, 32), (32, 33), (1, 5), (5, 1)])
def test_weights_sum_to_one(old: int, new: int) -> None:
    table = weights(old, new, torch.device("cpu"))
    assert table.shape == (new, old)
    assert torch.allclose(table.sum(1), torch.ones(new, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(table, table.flip(0, 1), atol=1e-6)
