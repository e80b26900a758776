"""What is lost: which packets, what stands in the place of values, their gradients, what is sent again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_channels import Values, through
from test_quantizers import KEY, SHAPE, stages

from compressors import Floats, Layout, Payload, Stage, Way, build, build_stage
from compressors.channels.packets import Losses
from flsplit.ledger.prices import PriceList
from flsplit.split.stages import Stages


@pytest.mark.some
@pytest.mark.parametrize(("rate", "burst"), [(0.1, None), (0.1, 4.0), (0.4, 2.0), (0.0, None), (1.0, None)])
def test_losses_have_their_rate_and_their_bursts(rate: float, burst: float | None) -> None:
    count = 60_000
    lost = Losses(rate, burst).draw(count, torch.Generator().manual_seed(0))
    assert len(lost) == count and float(lost.double().mean()) == pytest.approx(rate, abs=0.02)
    if burst is not None:
        begins = int((lost[1:] & ~lost[:-1]).sum())
        assert int(lost.sum()) / begins == pytest.approx(burst, rel=0.05)


def test_what_is_lost_is_zero_or_the_last_known() -> None:
    values = 1 + torch.arange(40.0).view(2, 5, 4)
    options = {"loss": 0.5, "packet_bytes": 16}  # a packet has four floats: a token
    gone = through(values, "erasure", 3, **options)
    lost = gone.view(10, 4).eq(0).all(1)
    assert torch.equal(lost, gone.view(10, 4).eq(0).any(1)) and 1 < int(lost.sum()) < 9
    assert torch.equal(gone.view(10, 4)[~lost], values.view(10, 4)[~lost])
    filled = through(values, "erasure", 3, fill="last", **options).view(10, 4)
    last = torch.zeros(4)
    for row in range(10):
        last = last if lost[row] else values.view(10, 4)[row]
        assert torch.equal(filled[row], last)


LOSING = [
    ("erasure", {"loss": 0.4, "packet_bytes": 20}), ("erasure", {"loss": 0.4, "packet_bytes": 20, "fill": "last"}),
    ("erasure", {"loss": 0.2, "packet_bytes": 20, "protect": False}),
    ("bitflip", {"rate": 2e-3, "checksum": True, "packet_bytes": 20}), ("rayleigh", {"outage_db": 60}),
]  # fmt: skip
CODES = [
    ("none", {}), ("fp16", {}), ("nf4", {}), ("uniform", {}), ("uniform", {"bits": 3, "range": "token"}),
    ("uniform", {"mode": "symmetric", "range": "channel"}), ("uniform", {"up": False}),
]  # fmt: skip


def met(link: Stages) -> list[tuple[Values, Values]]:
    """Fields of numbers from 1.5 to 2.5: what arrives of each, and what comes back for gradients of 1."""
    layout, draw = link.route(SHAPE).up[0], torch.Generator().manual_seed(0)
    floats = tuple(1.5 + torch.rand(field.shape, generator=draw) for field in layout.floats)
    integers = tuple(torch.zeros(field.shape, dtype=torch.int64) for field in layout.integers)
    sent = Payload(floats, integers, torch.zeros(10, dtype=torch.int64) if layout.labels else None)
    uplink = link.uplink(link.sent(sent, SHAPE, key=KEY), SHAPE, key=KEY)
    arrived = link.received(uplink, torch.device("cpu"))
    for t in arrived.floats:
        t.grad = torch.ones_like(t)
    back = link.answered(sent, uplink, link.downlink(uplink, arrived))
    return [(t.detach(), gradient) for t, (_, gradient) in zip(arrived.floats, back, strict=True)]


@pytest.mark.parametrize("quantizer", CODES, ids=str)
@pytest.mark.parametrize("channel", LOSING, ids=str)
@pytest.mark.parametrize("compressor", ["base", "topk", "adc"])
def test_a_lost_value_is_filled_in_and_has_no_gradient(
    compressor: str, channel: tuple[str, dict[str, object]], quantizer: tuple[str, dict[str, object]]
) -> None:
    of_tokens = quantizer[1].get("range") == "channel"
    if (quantizer[0] != "none" and channel[0] == "rayleigh") or (of_tokens and compressor == "topk"):
        return
    name, options = channel[0], {**channel[1], "down": False}
    clean = met(stages(compressor, ("quantizer", *quantizer)))
    zero = {key: value for key, value in options.items() if key != "fill"}
    zeros, found = (
        met(stages(compressor, ("quantizer", *quantizer), ("channel", name, own))) for own in (zero, options)
    )
    for (whole, _), (zeroed, _), (arrived, gradient) in zip(clean, zeros, found, strict=True):
        there = zeroed != 0
        assert float(there.double().mean()) == 0 if name == "rayleigh" else 0.1 < float(there.double().mean()) < 0.95
        assert torch.equal(gradient, there.float()) and torch.equal(arrived[there], whole[there])
        last = torch.zeros(whole.shape[-1])
        for row, known, own in zip(arrived.flatten(0, -2), there.flatten(0, -2), whole.flatten(0, -2)):
            last = torch.where(known, own, last if options.get("fill") == "last" else 0.0)
            assert torch.equal(row, last)


@pytest.mark.parametrize(
    "inner",
    [
        ("awgn", {"down": False}),
        ("erasure", {"loss": 0.4, "packet_bytes": 30, "down": False}),
        ("rayleigh", {"down": False}),
    ],
    ids=str,
)
def test_what_is_lost_stays_lost_behind_another_stage(inner: tuple[str, dict[str, object]]) -> None:
    outer = ("erasure", {"loss": 0.4, "packet_bytes": 20, "down": False})
    alone, chain = (
        met(stages("base", ("channel", *outer))),
        met(stages("base", *(("channel", *s) for s in (inner, outer)))),
    )
    (lost, _), (arrived, gradient) = alone[0], chain[0]
    assert not arrived[lost == 0].any() and 0 < int((arrived != 0).sum()) <= int((lost != 0).sum())
    assert torch.equal(gradient == 0, arrived == 0)
    if inner[0] == "erasure":  # what only the inner one has lost
        assert int((arrived != 0).sum()) < int((lost != 0).sum())


class Narrow(Stage):
    """Trained: half as wide on its way."""

    trained, ways = True, ("up",)

    def __init__(self) -> None:
        self.client_half, self.server_half = torch.nn.Linear(16, 8), torch.nn.Linear(8, 16)

    def fields(self, layout: Layout, way: Way) -> Layout:
        return replace(layout, floats=tuple(Floats((*field.shape[:-1], 8)) for field in layout.floats))

    def send(self, payload: Payload, layout: Layout, **_: object) -> Payload:
        return replace(payload, floats=tuple(self.client_half(t) for t in payload.floats))

    def receive(self, payload: Payload, layout: Layout, **_: object) -> Payload:
        return replace(payload, floats=tuple(self.server_half(t) for t in payload.floats))


def test_a_trained_stage_behind_which_values_are_lost_gets_zeros_and_answers_them() -> None:
    erasure = build_stage("channel", "erasure", loss=0.4, packet_bytes=20, down=False)
    both = Stages(build("base"), [Narrow(), erasure], draw=lambda *key: torch.Generator().manual_seed(1))
    kept = both.compress(torch.randn(10, 17, 16), torch.arange(10), None, SHAPE, generator=torch.Generator(), key=KEY)
    uplink = both.uplink(kept, SHAPE, key=KEY)
    arrived = both.received(uplink, torch.device("cpu"))
    both.decompress(arrived, uplink)[0].square().sum().backward()
    [(_, gradient)] = both.answered(kept, uplink, both.downlink(uplink, arrived))
    assert torch.equal(gradient == 0, arrived.floats[0] == 0) and 0 < int((gradient == 0).sum()) < gradient.numel()


def test_a_value_across_two_packets_is_lost_with_either() -> None:
    values = torch.ones(8)
    found = [through(values, "erasure", seed, loss=0.5, packet_bytes=6).tolist() for seed in range(200)]
    both = sum(row[1] for row in found) / 200  # bytes 4 to 7: packets 0 and 1
    alone = sum(row[0] for row in found) / 200
    assert alone == pytest.approx(0.5, abs=0.15) and both == pytest.approx(0.25, abs=0.13)


@pytest.mark.some
@pytest.mark.parametrize("burst", [None, 3.0])
def test_what_is_sent_again_is_counted_and_arrives(burst: float | None) -> None:
    again = stages(
        "base", ("channel", "erasure", {"loss": 0.25, "packet_bytes": 100, "retransmit": True, "burst": burst})
    )
    plain = stages("base")
    price, alone = PriceList(again).step(SHAPE), PriceList(plain).step(SHAPE)
    assert (price.uplink_bits, price.downlink_bits) == (alone.uplink_bits, alone.downlink_bits)
    found = [again.resent(SHAPE, key=(0, 1, step)) for step in range(100)]
    for way, sent in zip(zip(*found), (price.uplink_bits, price.downlink_bits)):
        assert sum(way) / (100 * sent) == pytest.approx(1 / 3, rel=0.1)  # 0.25 / (1 - 0.25)
    assert found == [again.resent(SHAPE, key=(0, 1, step)) for step in range(100)] and plain.resent(SHAPE, key=KEY) == (
        0,
        0,
    )
    z = torch.randn(10, 17, 16, requires_grad=True)
    kept = again.compress(z, torch.arange(10), None, SHAPE, generator=torch.Generator(), key=KEY)
    assert torch.equal(again.received(again.uplink(kept, SHAPE, key=KEY), torch.device("cpu")).floats[0], z)


@pytest.mark.slow
@pytest.mark.parametrize("packet_bytes", [100, 1000, 30000])
def test_a_burst_is_sent_through_to_its_end(packet_bytes: int) -> None:
    """However few packets a message has: a chain of losses, from its stationary state until the last has arrived."""
    link = stages("base", ("channel", "erasure", {
        "loss": 0.2, "packet_bytes": packet_bytes, "retransmit": True, "burst": 20.0, "down": False,
    }))  # fmt: skip
    bits = link.route(SHAPE).up[-1].uplink_bits
    count = -(-bits // (8 * packet_bytes))
    sizes = [min(8 * packet_bytes, bits - at * 8 * packet_bytes) for at in range(count)]
    draw, expected = np.random.default_rng(0), []
    for _ in range(4000):  # Gilbert and Elliott, packet by packet
        lost, at, sent = draw.random() < 0.2, 0, 0
        while at < count:
            sent += sizes[at] if lost else 0
            at += not lost
            lost = draw.random() >= 1 / 20 if lost else draw.random() < 0.2 / 20 / 0.8
        expected.append(sent)
    found = [link.resent(SHAPE, key=(0, 1, step))[0] for step in range(4000)]
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.15)


def test_a_checksum_turns_errors_into_losses() -> None:
    values = 1 + torch.rand(250, 4, generator=torch.Generator().manual_seed(0))
    rate, size = 2e-3, 16
    found = torch.stack(
        [through(values, "bitflip", seed, rate=rate, checksum=True, packet_bytes=size) for seed in range(20)]
    )
    assert ((found == 0) | (found == values)).all()
    expected = 1 - (1 - rate) ** (8 * size + 32)
    assert float((found == 0).double().mean()) == pytest.approx(expected, abs=0.03)
    layout = build_stage("channel", "bitflip", rate=rate, checksum=True, packet_bytes=size).fields(
        Layout((Floats((250, 4)),)), "up"
    )
    assert layout.uplink_bits == 32 * 1000 + 32 * 250
