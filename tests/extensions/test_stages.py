"""Stages of one's own: an 8-bit quantiser that is priced with its ranges, and a channel with noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from zlib import crc32

import pytest
import torch
from extensions.conftest import Started
from helpers.pages import ROOT, blocks

from compressors import BatchShape, Floats, Layout, Payload, Stage, build, build_stage, labels_of
from flsplit.ledger.prices import PriceList
from flsplit.split.codec import pack
from flsplit.split.stages import Stages

SHAPE = BatchShape(batch=10, tokens=17, width=16, classes=10)
FLOATS, LABELS, RANGES = 10 * 17 * 16, 10 * 4, 10 * 2 * 32
KEY = (0, 1, 0)


def stages(compressor: str, *behind: tuple[str, str, dict[str, object]], **options: object) -> Stages:
    made = [build_stage(group, name, **o) for group, name, o in behind]  # type: ignore[arg-type]
    first = build(compressor, **options)
    return Stages(first, made, draw=lambda *key: torch.Generator().manual_seed(crc32(repr(key).encode())))


def test_eight_bits_and_their_ranges_are_the_price() -> None:
    found = PriceList(stages("base", ("quantizer", "uniform8.uniform8", {}))).step(SHAPE)
    assert found.uplink_bits == 8 * FLOATS + RANGES + LABELS
    assert found.downlink_bits == 8 * FLOATS + RANGES
    assert found.nominal_bits == round((32 * FLOATS + LABELS) / 4) + 32 * FLOATS // 4


@pytest.mark.parametrize("bits", [1, 3, 8, 13])
@pytest.mark.parametrize("compressor", ["base", "topk", "adc", "c3sl"])
def test_the_packed_message_is_as_long_as_its_price(compressor: str, bits: int) -> None:
    options = {"group": 5} if compressor == "c3sl" else {}
    both = stages(compressor, ("quantizer", "uniform8.uniform8", {"bits": bits}), **options)
    both.compressor.bind(tokens=17, width=16, generator=torch.Generator().manual_seed(0))
    z, s = torch.randn(10, 17, 16, requires_grad=True), torch.rand(10, 17)
    kept = both.compress(z, torch.arange(10), s, SHAPE, generator=torch.Generator().manual_seed(1), key=KEY)
    uplink = both.uplink(kept, SHAPE, key=KEY)
    sent = pack(uplink, both.route(SHAPE).up[-1])
    arrived = both.received(uplink, torch.device("cpu"))
    activations, _ = both.decompress(arrived, uplink)
    activations.sum().backward()
    downlink = both.downlink(uplink, arrived)
    back = pack(downlink, both.route(SHAPE).down[-1])
    assert len(sent) + len(back) == PriceList(both).step(SHAPE).wire_bytes


def test_what_arrives_is_within_half_a_level() -> None:
    stage = build_stage("quantizer", "uniform8.uniform8")
    values = torch.randn(10, 17, 16)
    layout, none = Layout((Floats((10, 17, 16)),), labels=labels_of(SHAPE)), torch.Generator()
    sent = stage.send(Payload((values,), labels=torch.arange(10)), layout, way="up", generator=none)
    found = stage.receive(sent, layout, way="up", generator=none).floats[0]
    level = (values.flatten(1).amax(1) - values.flatten(1).amin(1)) / 255
    assert ((found - values).abs().flatten(1).amax(1) <= level * 0.501).all()
    assert (sent.integers[0].min(), sent.integers[0].max()) == (0, 255)


def signs() -> Stage:
    """The example of the page on stages."""
    [shown] = [block.text for block in blocks(ROOT / "compressors" / "stages.md") if block.file == "mine/signs.py"]
    names: dict[str, Any] = {"__name__": "mine.signs"}
    exec(shown, names)
    return names["Signs"]()


@pytest.mark.parametrize("quantizer", [signs, partial(build_stage, "quantizer", "uniform8.uniform8")])
def test_a_channel_turns_codes_over_and_leaves_what_they_are_read_by(quantizer: Callable[[], Stage]) -> None:
    stage, channel = quantizer(), build_stage("channel", "bitflip", rate=0.4, up=False)
    layout, stream = Layout((Floats((10, 17, 16), back=0),)), torch.Generator().manual_seed(0)
    coded = stage.fields(layout, "down")
    gradient = torch.randn(10, 17, 16, generator=stream)
    sent = stage.send(Payload((gradient,)), layout, way="down", generator=stream)
    noisy = channel.receive(sent, coded, way="down", generator=stream)
    assert torch.equal(noisy.floats[0], sent.floats[0]) and not torch.equal(noisy.integers[0], sent.integers[0])
    assert stage.receive(noisy, layout, way="down", generator=stream).floats[0].isfinite().all()


@pytest.mark.slow
def test_topk_then_the_quantiser(started: Started) -> None:
    plain = started("compressor=topk", "compressor.rate=0.1", out="plain")
    coarse = started("--config-dir", "uniform8/conf", "compressor=topk", "compressor.rate=0.1", "quantizer=uniform8")
    kept = round(0.1 * 17 * 64)
    steps, samples = plain.summary["samples"] // 10, plain.summary["samples"]
    assert plain.summary["uplink_bits"] - coarse.summary["uplink_bits"] == samples * kept * 24 - steps * 10 * 64
    assert coarse.rounds.train_loss.iloc[-1] == pytest.approx(plain.rounds.train_loss.iloc[-1], rel=0.02)
    assert coarse.rounds.train_loss.iloc[-1] != plain.rounds.train_loss.iloc[-1]


def test_the_channel_is_as_noisy_as_it_says() -> None:
    noisy = stages("base", ("channel", "hiss.hiss", {"snr_db": 10.0, "downlink": True}))
    z = torch.randn(10, 17, 16, requires_grad=True)
    kept = noisy.compress(z, torch.arange(10), None, SHAPE, generator=torch.Generator(), key=KEY)
    uplink = noisy.uplink(kept, SHAPE, key=KEY)
    arrived = noisy.received(uplink, torch.device("cpu"))
    noise = arrived.floats[0].detach() - z.detach()
    assert z.detach().square().mean() / noise.square().mean() == pytest.approx(10.0, rel=0.1)
    arrived.floats[0].grad = torch.ones(10, 17, 16)
    [(_, gradient)] = noisy.answered(kept, uplink, noisy.downlink(uplink, arrived))
    assert (gradient - 1).square().mean() == pytest.approx(0.1, rel=0.1)
    assert PriceList(noisy).step(SHAPE) == PriceList(stages("base")).step(SHAPE)


@pytest.mark.slow
def test_noise_is_drawn_anew_and_the_same_again(started: Started) -> None:
    noisy = ("--config-dir", "hiss/conf", "channel=hiss", "channel.snr_db=5")
    runs = [started(*noisy, out=name).rounds.train_loss.tolist() for name in ("one", "two")]
    assert runs[0] == runs[1]
    assert runs[0] != started(out="clean").rounds.train_loss.tolist()
    assert runs[0] != started(*noisy, "channel.downlink=true", out="both").rounds.train_loss.tolist()


def test_a_bad_option_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    from flsplit import cli

    arguments = ["--config-dir", "uniform8/conf", "quantizer=uniform8", "quantizer.bits=40", f"out={tmp_path}/run"]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == "flsplit: quantizer.bits must be in [1, 16], got 40\n"
