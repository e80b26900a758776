"""What all compressors promise: sizes and prices known beforehand, fp32 on the link, repeatability."""

from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import torch
from torch import Tensor

from compressors import BatchShape, Compressor, Floats, Integers, Layout, available, bits_for, build

MakeBatch = Callable[..., tuple[Tensor, Tensor, Tensor]]

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("base", {}),
    ("adc", {}),
    ("adc", {"ratio": 0.6, "rule": "pow_1_5_4_5", "vector": "avg_token"}),
    ("adc", {"batch_ratio": 0.3, "token_ratio": 1.0}),
    ("topk", {"rate": 0.3}),
    ("topk", {"index_bits": "per_batch"}),
    ("randtopk", {}),
    ("randtopk", {"rate": 1.0, "alpha": 0.5}),
    ("c3sl", {"group": 1}),
    ("c3sl", {"group": 4}),
    ("bottlenet", {"ratio": 0.4}),
    ("fedlite", {"pieces": 1, "codewords": 3}),
    ("splitfc", {"rate": 0.3}),
]
IDS = ["-".join([name, *map(str, options.values())]) for name, options in METHODS]
SHAPES = [(1, 5, 4, 10), (3, 17, 6, 2), (4, 2, 3, 1), (8, 50, 12, 100), (16, 9, 8, 7), (12, 1, 5, 3)]


def bound(name: str, options: dict[str, Any], tokens: int, width: int, prefix: int = 1) -> Compressor:
    generator = torch.Generator().manual_seed(0)
    return build(name, **options).bind(tokens=tokens, width=width, prefix_tokens=prefix, generator=generator)


def test_every_method_is_covered() -> None:
    assert {name for name, _ in METHODS} == set(available())


@pytest.mark.parametrize(("name", "options"), METHODS, ids=IDS)
@pytest.mark.parametrize("sizes", SHAPES)
def test_layout_is_what_is_sent(
    make_batch: MakeBatch, name: str, options: dict[str, Any], sizes: tuple[int, int, int, int]
) -> None:
    batch, tokens, width, classes = sizes
    shape = BatchShape(batch=batch, tokens=tokens, width=width, classes=classes)
    z, y, s = make_batch(batch, tokens, width, classes=classes)
    compressor = bound(name, options, tokens, width)
    payload, layout = compressor.compress(z, y, s), compressor.layout(shape)

    layout.check(payload)
    assert layout.labels == Integers((batch,), bits_for(classes), below=classes)
    assert all(sent.dtype == torch.float32 for sent in payload.floats)
    assert all(sent.dtype == torch.int64 for sent in payload.integers)
    for sent, field in zip(payload.integers, layout.integers):
        assert int(sent.min()) >= 0 and int(sent.max()) < 2**field.bits
    assert payload.labels is not None and torch.equal(payload.labels, y)

    received, targets = compressor.decompress(payload, shape)
    assert received.dtype == torch.float32 and received.shape[2] == width
    assert len(received) == len(targets)
    answered = [t for t, field in zip(payload.floats, layout.floats) if field.back]
    gradients = torch.autograd.grad(received.sum(), answered)
    assert [tuple(gradient.shape) for gradient in gradients] == [field.shape for field in layout.floats if field.back]
    logits = torch.randn(len(received), classes)
    assert compressor.expand(logits, payload).shape == (batch, classes)


@pytest.mark.parametrize(("name", "options"), METHODS, ids=IDS)
def test_same_generator_same_payload(make_batch: MakeBatch, name: str, options: dict[str, Any]) -> None:
    z, y, s = make_batch(8, 17, 6)
    payloads = []
    for unrelated in (1, 2):
        torch.manual_seed(unrelated)  # the global generator must play no part
        compressor = bound(name, options, 17, 6)
        payloads.append(compressor.compress(z, y, s, generator=torch.Generator().manual_seed(9)))
    first, second = payloads
    assert all(torch.equal(a, b) for a, b in zip(first.floats + first.integers, second.floats + second.integers))


@pytest.mark.parametrize(("name", "options"), METHODS, ids=IDS)
def test_autocast_changes_nothing(make_batch: MakeBatch, name: str, options: dict[str, Any]) -> None:
    z, y, s = make_batch(8, 17, 6)
    half = z.detach().bfloat16()
    compressor, shape = bound(name, options, 17, 6), BatchShape(batch=8, tokens=17, width=6, classes=10)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            payload = compressor.compress(half, y, s, generator=torch.Generator().manual_seed(9))
            received, targets = compressor.decompress(payload, shape)
        results.append((*payload.floats, *payload.integers, received, targets))
    for plain, cast in zip(*results):
        assert plain.dtype == cast.dtype and torch.equal(plain, cast)


@pytest.mark.parametrize(("name", "options"), METHODS, ids=IDS)
def test_scores_are_needed_only_where_said(make_batch: MakeBatch, name: str, options: dict[str, Any]) -> None:
    z, y, _ = make_batch(8, 17, 6)
    compressor = bound(name, options, 17, 6)
    if compressor.needs_scores:
        with pytest.raises(AssertionError):
            compressor.compress(z, y, None)
    else:
        compressor.compress(z, y, None)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 100, 101, 128, 129, 37824, 2**40, 2**60 + 1])
def test_bits_for(n: int) -> None:
    bits = bits_for(n)
    assert 2**bits >= n and (bits == 0 or 2 ** (bits - 1) < n)


def test_bits_of_a_layout() -> None:
    layout = Layout((Floats((2, 3)), Floats((5,), bits=16, back=0)), (Integers((4,), 7),), Integers((1,), 1))
    assert layout.downlink_bits == 6 * 32
    assert layout.uplink_bits == 6 * 32 + 5 * 16 + 29
    assert layout.gradients() == Layout((Floats((2, 3), back=0),))


TINY = BatchShape(batch=128, tokens=197, width=192, classes=100)
SMALL = BatchShape(batch=128, tokens=197, width=384, classes=100)


@pytest.mark.parametrize("shape", [TINY, SMALL], ids=["tiny", "small"])
def test_bits_as_formulas(shape: BatchShape) -> None:
    samples, features = shape.batch, shape.tokens * shape.width
    base = build("base").layout(shape)
    assert base.uplink_bits == samples * (features * 32 + 7)
    assert base.downlink_bits == samples * features * 32
    adc = build("adc", ratio=0.1).layout(shape)
    assert adc.uplink_bits == 40 * 62 * shape.width * 32 + samples * (7 + 6)
    assert adc.downlink_bits == 40 * 62 * shape.width * 32
    kept = round(0.1 * features)
    for name in ("topk", "randtopk"):
        topk = build(name, rate=0.1).layout(shape)
        assert topk.uplink_bits == samples * (kept * (32 + (16 if shape is TINY else 17)) + 7)
        assert topk.downlink_bits == samples * kept * 32
        topk = build(name, rate=0.1, index_bits="per_batch").layout(shape)
        assert topk.uplink_bits == samples * (kept * (32 + (23 if shape is TINY else 24)) + 7)
    c3sl = build("c3sl", group=8).layout(shape)
    assert c3sl.uplink_bits == 16 * features * 32 + samples * 7
    assert c3sl.downlink_bits == 16 * features * 32
    bottlenet = build("bottlenet", ratio=0.1).layout(shape)
    sent = 19 if shape is TINY else 38
    assert bottlenet.downlink_bits == samples * shape.tokens * sent * 32
    assert bottlenet.uplink_bits == bottlenet.downlink_bits + samples * 7


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize(("shape", "factor"), [(TINY, 1.359), (SMALL, 1.375)], ids=["tiny", "small"])
def test_price_of_topk_in_the_figure(shape: BatchShape, factor: float, rate: float) -> None:
    """With the index price of the authors' code, the figure's x is `factor` times the rate."""
    layout = build("topk", rate=rate, index_bits="per_batch").layout(shape)
    base = build("base").layout(shape)
    x = (layout.uplink_bits / base.uplink_bits + layout.downlink_bits / base.downlink_bits) / 2
    assert x == pytest.approx(factor * rate, rel=2e-3)


@pytest.mark.parametrize("shape", [TINY, SMALL, BatchShape(batch=6, tokens=9, width=8, classes=3)])
def test_nominal_ratios_are_those_of_table_1(shape: BatchShape) -> None:
    features = shape.tokens * shape.width
    index = next(bits for bits in range(64) if bits >= log2(features))
    expected: list[tuple[str, dict[str, Any], tuple[float, float]]] = [
        ("base", {}, (1, 1)),
        ("bottlenet", {"ratio": 0.3}, (0.3, 0.3)),
        ("topk", {"rate": 0.3}, (0.3 * (1 + index / 32), 0.3)),
        ("topk", {"rate": 0.3, "index_bits": "per_batch"}, (0.3 * (1 + index / 32), 0.3)),
        ("randtopk", {"rate": 0.3}, (0.3 * (1 + index / 32), 0.3)),
        ("c3sl", {"group": 4}, (0.25, 0.25)),
        ("adc", {"ratio": 0.3, "rule": "release2026"}, (0.3, 0.3)),
        ("adc", {"batch_ratio": 0.5, "token_ratio": 0.6}, (0.3, 0.3)),
    ]
    for name, options, ratios in expected:
        assert build(name, **options).nominal_ratios(shape) == pytest.approx(ratios)
