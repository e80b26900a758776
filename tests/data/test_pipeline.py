import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from flsplit.data import DataError, DatasetConfig, Table, load
from flsplit.data import pipeline as pipeline_module
from flsplit.data import prepare as prepare_module
from flsplit.data.augment import draw, paper
from flsplit.data.order import step_sizes
from flsplit.data.ordered import ordered_map
from flsplit.data.pipeline import Pipeline
from flsplit.streams import torch_stream

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
LEVEL = 1 / 255 / min(STD)  # one 8-bit level after normalising


def uniform(samples: int = 50, side: int = 32, channels: int = 3) -> Table:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (samples, 4, 4, channels), dtype=np.uint8).repeat(side // 4, 1).repeat(side // 4, 2)
    noise = rng.integers(0, 30, (samples, side, side, channels), dtype=np.uint8)
    return Table(rng.integers(0, 10, samples), pixels=coarse // 2 + noise)


def encoded(samples: int = 20) -> Table:
    import io

    rng = np.random.default_rng(1)
    parts = []
    for index in range(samples):
        size = (70 + 3 * index, 90 - index)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize(size).save(buffer, "PNG")
        parts.append(np.frombuffer(buffer.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, parts)])
    return Table(rng.integers(0, 10, samples), blob=np.concatenate(parts), offsets=offsets)


def make(size: int = 32, augment: str = "none", **options: Any) -> Pipeline:
    return Pipeline(
        **{"image_size": size, "augment": augment, "mean": MEAN, "std": STD, "device": CPU, "seed": 0} | options
    )


def train(pipeline: Pipeline, table: Table, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    given = {"client": 0, "round": 0, "batch_size": 8} | options
    return list(pipeline.train_batches(table, given.pop("indices", np.arange(len(table))), **given))


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b))


TABLES = {"uniform": uniform, "encoded": encoded}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("size", [16, 32, 96, 224])
def test_the_test_transform(kind: str, size: int) -> None:
    table = TABLES[kind](12)
    reference = transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    batches = list(make(size).eval_batches(table, None, 5))
    assert [len(y) for _, y in batches] == [5, 5, 2]
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    expected = torch.stack([reference(table.image(i)) for i in range(12)])
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    assert np.array_equal(y.numpy(), table.labels)
    assert y.dtype == torch.int64
    assert (x - expected).abs().max() <= LEVEL * 1.001
    assert (x - expected).abs().mean() < LEVEL / 1000


def test_without_resizing_it_is_exact() -> None:
    table = uniform()
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    (x, _), *_ = make(32).eval_batches(table, None, 50)
    assert torch.equal(x, torch.stack([reference(table.image(i)) for i in range(50)]))


@pytest.mark.parametrize("augment", ["none", "paper"])
@pytest.mark.parametrize("shape", [(20, 24), (24, 20)])
def test_images_of_one_size_come_out_as_among_those_of_many(shape: tuple[int, int], augment: str) -> None:
    import io

    table = Table(np.arange(9), pixels=np.random.default_rng(2).integers(0, 256, (9, *shape, 3), dtype=np.uint8))
    parts = []
    for row in range(9):
        buffer = io.BytesIO()
        table.image(row).save(buffer, "PNG")
        parts.append(np.frombuffer(buffer.getvalue(), np.uint8))
    among = Table(table.labels, blob=np.concatenate(parts), offsets=np.cumsum([0, *map(len, parts)]))
    assert same(train(make(16, augment), table), train(make(16, augment), among))


def test_grey_tables_are_served_with_three_channels() -> None:
    table = uniform(side=8, channels=1)
    (x, _), *_ = make(16).eval_batches(table, None, 10)
    assert x.shape == (10, 3, 16, 16)
    grey = x * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert torch.allclose(grey[:, 0], grey[:, 2], atol=1e-6)
    (y, _), *_ = make(8, "paper").train_batches(table, np.arange(10), client=0, round=0, batch_size=10)
    assert y.shape == (10, 3, 8, 8)


def test_chosen_rows_are_evaluated_in_order() -> None:
    table, rows = uniform(), np.array([7, 3, 30])
    (x, y), *rest = make().eval_batches(table, rows, 8)
    assert not rest
    assert np.array_equal(y.numpy(), table.labels[rows])
    whole, _ = next(iter(make().eval_batches(table, None, 50)))
    assert torch.equal(x, whole[rows])


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("size", [32, 48])
def test_the_training_transform_by_hand(kind: str, size: int) -> None:
    table = TABLES[kind](20)
    batches = train(make(size, "paper"), table, client=3, round=2, local_epochs=2)
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    step = 0
    for epoch in range(2):
        order = torch.randperm(20, generator=torch_stream(0, "order", 3, 2, epoch)).numpy()
        for start in (0, 8):
            rows = order[start : start + 8]
            numbers = draw(8, torch_stream(0, "augment", 3, 2, step))
            x, y = batches[step]
            assert np.array_equal(y.numpy(), table.labels[rows])
            for index, row in enumerate(rows):
                image = paper(table.image(row), numbers, index).resize((size, size), Image.Resampling.BILINEAR)
                if numbers.flip[index]:
                    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                difference = (x[index] - normalise(image)).abs().max()
                assert difference <= (0 if size == 32 and kind == "uniform" else LEVEL * 1.001)
            step += 1
    assert step == len(batches)


def test_without_augmentation_nothing_changes_but_the_order() -> None:
    table = uniform()
    whole, _ = next(iter(make().eval_batches(table, None, 50)))
    order = torch.randperm(50, generator=torch_stream(0, "order", 0, 0, 0))
    for step, (x, y) in enumerate(train(make(), table)):
        rows = order[8 * step : 8 * step + 8]
        assert torch.equal(x, whole[rows])
        assert np.array_equal(y.numpy(), table.labels[rows.numpy()])


@pytest.mark.some
@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("augment", ["none", "paper"])
def test_batches_depend_on_their_key_only(kind: str, augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = TABLES[kind](20)
    base = train(make(augment=augment), table)
    assert same(base, train(make(augment=augment, workers=3), table))
    torch.manual_seed(99)
    monkeypatch.setattr(pipeline_module, "_AHEAD", 0)
    monkeypatch.setattr(pipeline_module, "_TOGETHER", 1)
    assert same(base, train(make(augment=augment), table))
    for other in ({"client": 1}, {"round": 1}):
        assert not same(base, train(make(augment=augment), table, **other))
    assert not same(base, train(make(augment=augment, seed=1), table))


def test_streams_of_two_clients_may_interleave() -> None:
    table, pipeline = uniform(), make(augment="paper")
    alone = [train(pipeline, table, client=client) for client in (0, 1)]
    streams = [pipeline.train_batches(table, np.arange(50), client=client, round=0, batch_size=8) for client in (0, 1)]
    together = list(zip(*streams))
    assert same(alone[0], [pair[0] for pair in together])
    assert same(alone[1], [pair[1] for pair in together])


@pytest.mark.parametrize("augment", ["none", "paper"])
@pytest.mark.parametrize("samples", [1, 5, 7, 8, 9, 30])
@pytest.mark.parametrize("options", [{"local_epochs": 2}, {"local_steps": 5}, {"local_epochs": 1, "group_size": 4}])
def test_steps_are_the_real_sizes(augment: str, samples: int, options: dict[str, int]) -> None:
    batches = train(make(8, augment), uniform(side=8), indices=np.arange(samples), **options)
    given = {"local_epochs": 1, "local_steps": None, "group_size": 1} | options
    assert [len(y) for _, y in batches] == step_sizes(samples, 8, **given)
    assert all(len(x) == len(y) for x, y in batches)


def test_an_unknown_transform_is_refused() -> None:
    with pytest.raises(DataError, match="augment: 'strong' is unknown; choose one of none, paper"):
        make(augment="strong")


def data_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("flsplit-data")]


@pytest.mark.some
@pytest.mark.parametrize("way", ["close", "drop", "exhaust", "error"])
def test_threads_end_with_the_consumer(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make(augment="paper")
    batches = pipeline.train_batches(encoded(), np.arange(20), client=0, round=0, batch_size=2)
    next(batches)
    assert data_threads()
    if way == "close":
        batches.close()  # type: ignore[attr-defined]
    elif way == "drop":
        del batches
        gc.collect()
    elif way == "exhaust":
        assert len(list(batches)) == 9
    else:
        monkeypatch.setattr(pipeline_module.transform, "paper", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(batches)
    assert not data_threads()


@pytest.mark.parametrize("augment", ["none", "paper"])
def test_images_of_one_size_need_no_threads(augment: str) -> None:
    batches = make(augment=augment).train_batches(uniform(), np.arange(50), client=0, round=0, batch_size=4)
    next(batches)
    assert not data_threads()


def test_look_ahead_is_bounded_and_in_order() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    def slow_at_first(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0.0)
        return item

    with ThreadPoolExecutor(3) as pool:
        results = ordered_map(slow_at_first, items(), pool=pool, ahead=2)
        assert [next(results) for _ in range(7)] == list(range(7))
        assert len(taken) <= 7 + 2
        assert list(results) == list(range(7, 100))


def test_preparation_runs_beside_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def count(encoded: bytes) -> Image.Image:
        decoded.append(encoded)
        return Image.new("RGB", (32, 32))

    monkeypatch.setattr(prepare_module, "decode", count)
    batches = make().train_batches(encoded(), np.arange(20), client=0, round=0, batch_size=2, local_steps=20)
    next(batches)
    deadline = time.monotonic() + 60
    while len(decoded) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(decoded) >= 4  # the next batch, while nobody has asked for it


def test_pixels_are_shared_and_released() -> None:
    table = uniform()
    first = pipeline_module.resident(table, CPU)
    assert pipeline_module.resident(table, CPU) is first
    assert first.data_ptr() == table.pixels.ctypes.data
    alive = weakref.ref(table)
    del table
    gc.collect()
    assert alive() is None
    assert not any(first is tensor for tensors in pipeline_module._RESIDENT.values() for tensor in tensors.values())


def test_real_tables_from_the_cache(tmp_path: Any) -> None:
    data = load(DatasetConfig(name="digits"), seed=0, cache_dir=tmp_path)
    batches = train(make(16), data.train, batch_size=32)
    assert len(batches) == 1437 // 32
    x, y = batches[0]
    assert x.shape == (32, 3, 16, 16)
    assert set(y.tolist()) <= set(range(10))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("augment", ["none", "paper"])
def test_a_gpu_gets_the_same_batches(kind: str, augment: str) -> None:
    table = TABLES[kind](20)
    cuda = make(48, augment, device=torch.device("cuda"))
    for (x, y), (u, v) in zip(train(make(48, augment), table), train(cuda, table), strict=True):
        assert u.is_cuda
        assert torch.equal(y, v.cpu())
        # The same 8-bit values; only the last bits of the normalisation may differ.
        assert torch.allclose(x, u.cpu(), atol=1e-5)
