"""Quantisers: what arrives, what it costs, and what is refused."""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np
import pytest
import torch

from compressors import BatchShape, Floats, Layout, Payload, build, build_stage, labels_of
from compressors.quantizers.nf4 import levels
from flsplit.ledger.prices import PriceList
from flsplit.split.codec import pack, unpack
from flsplit.split.stages import Stages

SHAPE = BatchShape(batch=10, tokens=17, width=16, classes=10)
KEY = (0, 1, 0)
QUANTIZERS = [
    ("fp16", {}), ("fp16", {"range": "tensor"}), ("bf16", {}), ("nf4", {}), ("fp8", {}),
    ("fp8", {"format": "e5m2", "range": "none"}), *(("uniform", {"bits": bits}) for bits in (1, 3, 8, 13, 16)),
    ("uniform", {"bits": 4, "bits_down": 7, "range": "token"}), ("uniform", {"mode": "symmetric", "range": "token"}),
    ("uniform", {"bits": 2, "rounding": "stochastic"}), ("uniform", {"up": False}), ("uniform", {"down": False}),
]  # fmt: skip
COMPRESSORS = ["base", "topk", "randtopk", "adc", "c3sl", "bottlenet", "fedlite", "splitfc"]


def stages(compressor: str, *behind: tuple[str, str, dict[str, object]]) -> Stages:
    """Of one side, bound."""
    options = {"group": 5} if compressor == "c3sl" else {}
    first = build(compressor, **options).bind(tokens=17, width=16, generator=torch.Generator().manual_seed(0))
    made, layout = [build_stage(group, name, **own) for group, name, own in behind], first.layout(SHAPE)  # type: ignore[arg-type]
    for stage in made:
        stage.bind(layout, SHAPE, generator=torch.Generator())
        layout = stage.fields(layout, "up") if "up" in stage.ways else layout
    return Stages(first, made, draw=lambda *key: torch.Generator().manual_seed(crc32(repr(key).encode())))


def there_and_back(values: torch.Tensor, name: str, way: str = "up", **options: object) -> torch.Tensor:
    stage, layout = build_stage("quantizer", name, **options), Layout((Floats(tuple(values.shape)),))
    sent = stage.send(Payload((values,)), layout, way=way, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    stage.fields(layout, way).check(sent)  # type: ignore[arg-type]
    return stage.receive(sent, layout, way=way, generator=torch.Generator()).floats[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize(("name", "options"), QUANTIZERS)
def test_the_packed_message_is_as_long_as_its_price(compressor: str, name: str, options: dict[str, object]) -> None:
    both = stages(compressor, ("quantizer", name, options))
    z, s = torch.randn(10, 17, 16, requires_grad=True), torch.rand(10, 17)
    kept = both.compress(z, torch.arange(10), s, SHAPE, generator=torch.Generator().manual_seed(1), key=KEY)
    uplink = both.uplink(kept, SHAPE, key=KEY)
    sent = pack(uplink, both.route(SHAPE).up[-1])
    crossed = unpack(sent, layout=both.route(SHAPE).up[-1], shape=SHAPE).payload
    assert all(torch.equal(a, b) for a, b in zip(crossed.integers, uplink.payload.integers, strict=True))
    arrived = both.received(uplink, torch.device("cpu"))
    activations, _ = both.decompress(arrived, uplink)
    activations.square().sum().backward()
    downlink = both.downlink(uplink, arrived)
    back = pack(downlink, both.route(SHAPE).down[-1])
    price = PriceList(both).step(SHAPE)
    assert len(sent) + len(back) == price.wire_bytes
    for t, gradient in both.answered(kept, uplink, downlink):
        assert gradient.shape == t.shape and torch.isfinite(gradient).all()


def test_eight_bits_by_hand() -> None:
    values = 10 * 17 * 16
    found = PriceList(stages("base", ("quantizer", "uniform", {}))).step(SHAPE)
    assert (found.uplink_bits, found.downlink_bits) == (8 * values + 64 + 10 * 4, 8 * values + 64)
    found = PriceList(stages("base", ("quantizer", "uniform", {"range": "token", "mode": "symmetric"}))).step(SHAPE)
    assert (found.uplink_bits, found.downlink_bits) == (8 * values + 170 * 32 + 40, 8 * values + 170 * 32)
    found = PriceList(stages("base", ("quantizer", "uniform", {"bits": 4, "bits_down": 2, "range": "channel"}))).step(
        SHAPE
    )
    assert (found.uplink_bits, found.downlink_bits) == (4 * values + 16 * 64 + 40, 2 * values + 16 * 64)
    assert found.nominal_bits == round((32 * values + 40) / 8) + 32 * values // 16
    found = PriceList(stages("base", ("quantizer", "bf16", {"down": False}))).step(SHAPE)
    assert (found.uplink_bits, found.downlink_bits) == (16 * values + 40, 32 * values)


def uniform_in_numpy(values: np.ndarray, bits: int, mode: str, axis: int | None) -> np.ndarray:
    """The definition, in double precision."""
    x = values.astype(np.float64)
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    if mode == "symmetric":
        high = np.maximum(high, -low)
        low = -high
    levels = 2**bits - 1 if mode == "affine" or bits == 1 else 2**bits - 2
    return low + np.round((x - low) / (high - low) * levels) * (high - low) / levels


@pytest.mark.parametrize("mode", ["affine", "symmetric"])
@pytest.mark.parametrize(("range", "axis"), [("tensor", None), ("token", 1), ("channel", 0)])
@pytest.mark.parametrize("bits", [1, 2, 5, 8, 12])
def test_uniform_is_its_definition(bits: int, range: str, axis: int | None, mode: str) -> None:
    values = torch.randn(6, 7, 8, generator=torch.Generator().manual_seed(bits)) * torch.rand(7, 1) + torch.rand(8)
    found = there_and_back(values, "uniform", bits=bits, range=range, mode=mode)
    expected = uniform_in_numpy(values.reshape(42, 8).numpy(), bits, mode, axis).reshape(6, 7, 8)
    level = float(values.max() - values.min()) * 2 / max(1, 2**bits - 2)
    off = np.abs(found.numpy() - expected) > 1e-5
    assert off.mean() < 0.01 and (np.abs(found.numpy() - expected)[off] < 1.01 * level).all()  # ties in fp32


def test_symmetric_is_what_torch_calls_so() -> None:
    values = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    step = values.abs().max() / 127
    expected = torch.fake_quantize_per_tensor_affine(values, float(step), 0, -127, 127)
    found = there_and_back(values, "uniform", mode="symmetric")
    assert ((found - expected).abs() < 1e-6).float().mean() > 0.999
    assert there_and_back(torch.zeros(3, 4), "uniform", mode="symmetric").abs().max() == 0


def test_both_ways_have_bits_of_their_own() -> None:
    values = torch.linspace(-1, 1, 1001).view(1, -1)
    ups, downs = (there_and_back(values, "uniform", way, bits=3, bits_down=1).unique() for way in ("up", "down"))
    assert (len(ups), len(downs)) == (8, 2)


def test_stochastic_rounding_is_right_in_the_mean() -> None:
    values = torch.cat([torch.tensor([0.0, 3.0]), torch.full((100_000,), 0.7)]).view(1, -1)
    found = there_and_back(values, "uniform", bits=2, rounding="stochastic")[0, 2:]
    assert found.unique().tolist() == [0.0, 1.0]
    assert float(found.mean()) == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / 1e5))


@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [
        ("fp16", torch.float16, {}),
        ("bf16", torch.bfloat16, {}),
        ("fp8", torch.float8_e4m3fn, {"range": "none"}),
        ("fp8", torch.float8_e5m2, {"range": "none", "format": "e5m2"}),
    ],
)
def test_casts_are_torchs(name: str, dtype: torch.dtype, options: dict[str, object]) -> None:
    values = torch.randn(30, 40, generator=torch.Generator().manual_seed(0)) * 10
    assert torch.equal(there_and_back(values, name, **options), values.to(dtype).float())


def test_a_scale_saves_small_gradients() -> None:
    values = torch.randn(30, 40, generator=torch.Generator().manual_seed(0)) * 1e-9
    assert there_and_back(values, "fp16").abs().max() == 0
    for name in ("fp16", "fp8"):
        scaled = there_and_back(values, name, range="tensor")
        assert (scaled - values).norm() / values.norm() < {"fp16": 1e-3, "fp8": 0.04}[name]


def test_normal_floats_are_the_published_levels() -> None:
    # Appendix E of arXiv 2305.14314.
    published = [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
        0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]  # fmt: skip
    torch.testing.assert_close(levels(), torch.tensor(published), rtol=0, atol=1e-6)
    values = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    scale = values.abs().amax(1, keepdim=True)
    nearest = (values / scale).unsqueeze(2).sub(levels()).abs().argmin(2)
    torch.testing.assert_close(there_and_back(values, "nf4"), levels()[nearest] * scale)


@pytest.mark.parametrize(("name", "options"), QUANTIZERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_made_finite(name: str, options: dict[str, object], bad: float) -> None:
    if not options.get("up", True):
        return
    values = torch.ones(4, 5, 6)
    values[1, 2, 3] = bad
    assert not torch.isfinite(there_and_back(values, name, **options)).all()
    if name == "fp8":  # e4m3 has no infinities
        assert not torch.isfinite(there_and_back(values, name, **{**options, "range": "none"})).all()


@pytest.mark.parametrize(("name", "options"), QUANTIZERS)
def test_equal_values_arrive(name: str, options: dict[str, object]) -> None:
    for value in (0.0, 1.0, -2.0):
        values = torch.full((4, 5, 6), value)
        torch.testing.assert_close(there_and_back(values, name, **options), values)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("uniform", {"bits": 0}, "quantizer.bits must be in [1, 16], got 0"),
        ("uniform", {"bits": 17}, "quantizer.bits must be in [1, 16], got 17"),
        ("uniform", {"bits_down": 99}, "quantizer.bits_down must be in [1, 16], got 99"),
        ("uniform", {"bits": 2.5}, "quantizer.bits must be a whole number, got 2.5"),
        ("uniform", {"mode": "odd"}, "quantizer.mode must be one of affine, symmetric, got 'odd'"),
        ("uniform", {"rounding": "up"}, "quantizer.rounding must be one of nearest, stochastic, got 'up'"),
        ("uniform", {"range": "none"}, "quantizer.range must be one of tensor, token, channel, got 'none'"),
        ("fp8", {"format": "e3m4"}, "quantizer.format must be one of e4m3, e5m2, got 'e3m4'"),
        ("int8", {}, "quantizer must be one of bf16, fp16, fp8, nf4, none, uniform, or the dotted path"),
    ],
)
def test_what_cannot_be_is_one_line(name: str, options: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_stage("quantizer", name, **options)
    assert str(raised.value).startswith(line) and "\n" not in str(raised.value)


def test_a_message_without_channels_has_no_range_of_them() -> None:
    with pytest.raises(ValueError, match=r"quantizer\.range=channel needs tokens of a width"):
        stages("topk", ("quantizer", "uniform", {"range": "channel"}))
    nothing = Layout((Floats((4, 5), 0, 32),), labels=labels_of(SHAPE))
    with pytest.raises(ValueError, match="finds no numbers to quantise"):
        build_stage("quantizer", "uniform").bind(nothing, SHAPE, generator=torch.Generator())
