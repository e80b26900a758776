"""Channels: how much they disturb, what they leave alone, what that costs, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from test_quantizers import COMPRESSORS, KEY, SHAPE, stages

from compressors import Floats, Integers, Layout, Payload, build_stage, labels_of
from compressors.channels.bitflip import turned_over
from flsplit.ledger.prices import PriceList
from flsplit.split.codec import pack, unpack

Values = torch.Tensor
CHANNELS = [
    ("awgn", {}), ("awgn", {"snr_db": [0, 20], "code_rate": 1.0}), ("rayleigh", {"coherence": 2}),
    ("rayleigh", {"knowledge": "none", "outage_db": 0}), ("erasure", {"loss": 0.3, "packet_bytes": 50}),
    ("erasure", {"loss": 0.3, "packet_bytes": 50, "burst": 3, "fill": "last", "code_rate": 0.3}),
    ("erasure", {"loss": 0.3, "packet_bytes": 50, "retransmit": True}), ("erasure", {"protect": False}),
    ("bitflip", {"rate": 1e-3}), ("bitflip", {"ebn0_db": 5, "fading": "rayleigh", "coherence": 3, "code_rate": 0.75}),
    ("bitflip", {"rate": 1e-3, "checksum": True, "packet_bytes": 40}), ("bitflip", {"rate": 0.1, "protect": False}),
]  # fmt: skip


def through(values: Values, name: str, seed: int = 0, **options: object) -> Values:
    """A field of floats over a channel, and back out of it."""
    stage, layout = build_stage("channel", name, **options), Layout((Floats(tuple(values.shape)),))
    streams = {"generator": torch.Generator().manual_seed(seed)}
    if stage.coherence is not None:
        streams["block"] = torch.Generator().manual_seed(seed + 1_000_000)
    sent = stage.send(Payload((values,)), layout, way="up", **streams)
    stage.fields(layout, "up").check(sent)
    return stage.receive(sent, layout, way="up", **streams).floats[0]


@pytest.mark.parametrize("quantizer", ["none", "uniform"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize(("name", "options"), CHANNELS)
def test_the_packed_message_is_as_long_as_its_price(
    compressor: str, quantizer: str, name: str, options: dict[str, object]
) -> None:
    if quantizer != "none" and name in ("awgn", "rayleigh"):
        return
    both = stages(compressor, ("quantizer", quantizer, {}), ("channel", name, options))
    z, s = torch.randn(10, 17, 16, requires_grad=True), torch.rand(10, 17)
    kept = both.compress(z, torch.arange(10), s, SHAPE, generator=torch.Generator().manual_seed(1), key=KEY)
    uplink = both.uplink(kept, SHAPE, key=KEY)
    sent = pack(uplink, both.route(SHAPE).up[-1])
    unpack(sent, layout=both.route(SHAPE).up[-1], shape=SHAPE)
    arrived = both.received(uplink, torch.device("cpu"))
    activations, _ = both.decompress(arrived, uplink)
    activations.sum().backward()
    downlink = both.downlink(uplink, arrived)
    back = pack(downlink, both.route(SHAPE).down[-1])
    assert len(sent) + len(back) == PriceList(both).step(SHAPE).wire_bytes
    for t, gradient in both.answered(kept, uplink, downlink):
        assert gradient.shape == t.shape


@pytest.mark.parametrize("snr_db", [-3.0, 0.0, 10.0, 25.0])
def test_the_snr_is_what_was_asked_for(snr_db: float) -> None:
    values = torch.rand(1_000_000, generator=torch.Generator().manual_seed(1)) * 3 - 0.5
    noise = through(values, "awgn", snr_db=snr_db) - values
    found = 10 * math.log10(float(values.double().square().mean() / noise.double().square().mean()))
    assert found == pytest.approx(snr_db, abs=0.02)
    assert abs(float(noise.double().mean() / noise.std())) < 0.005


def test_the_power_is_that_of_the_whole_message() -> None:
    stage = build_stage("channel", "awgn", snr_db=0.0)
    layout = Layout((Floats((200_000,)), Floats((3,), back=0, protected=True), Floats((200_000,))))
    scale = torch.tensor([1.0, 2.0, 3.0])
    sent = Payload((torch.zeros(200_000), scale, torch.full((200_000,), 2.0)))
    on_air = stage.send(sent, layout, way="up", generator=torch.Generator())
    found = stage.receive(on_air, layout, way="up", generator=torch.Generator().manual_seed(0)).floats
    assert torch.equal(found[1], scale)
    for got, was in zip(found[::2], sent.floats[::2]):  # both at the mean power, 2
        assert float((got - was).square().mean()) == pytest.approx(2.0, rel=0.02)


def test_a_range_of_snr_is_drawn_for_each_message() -> None:
    values, found = torch.ones(20_000), []
    for seed in range(40):
        noise = through(values, "awgn", seed, snr_db=[0.0, 20.0]) - values
        found.append(-10 * math.log10(float(noise.square().mean())))
    assert min(found) < 4 and max(found) > 16 and all(-0.5 < x < 20.5 for x in found)


def gains(count: int, **options: object) -> list[float]:
    """|h|^2 of so many messages, from a channel without noise that does not know it."""
    values = torch.tensor([1.0, 0.0])
    return [
        float(through(values, "rayleigh", seed, snr_db=150.0, knowledge="none", **options).square().sum())
        for seed in range(count)
    ]


@pytest.mark.slow
def test_rayleigh_gains_are_exponential() -> None:
    found = torch.tensor(gains(4000)).double()
    assert float(found.mean()) == pytest.approx(1.0, abs=0.06) and float(found.std()) == pytest.approx(1.0, abs=0.1)
    for level in (0.1, 0.5, 1.0, 2.0):
        assert float((found < level).double().mean()) == pytest.approx(1 - math.exp(-level), abs=0.03)


def test_who_knows_the_gain_has_more_noise_and_who_does_not_is_turned() -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(3))
    for seed in range(5):
        [gain] = [
            float(through(torch.tensor([1.0, 0.0]), "rayleigh", seed, snr_db=150.0, knowledge="none").square().sum())
        ]
        noise = through(values, "rayleigh", seed, snr_db=10.0) - values
        assert float(noise.square().mean()) == pytest.approx(0.1 / gain, rel=0.03)
        turned = through(values, "rayleigh", seed, snr_db=150.0, knowledge="none")
        assert float(turned.square().mean()) == pytest.approx(gain, rel=0.01)
        # One complex factor for all symbols: what it makes of one tells it.
        one = torch.complex(*turned.view(-1, 2).T.contiguous()) / torch.complex(*values.view(-1, 2).T.contiguous())
        assert float((one - one[0]).abs().max()) < 1e-3 * float(one[0].abs()) + 1e-3


@pytest.mark.slow
def test_outage_leaves_nothing() -> None:
    values = torch.ones(10)
    lost = [not through(values, "rayleigh", seed, snr_db=10.0, outage_db=10.0).any() for seed in range(2000)]
    assert sum(lost) / 2000 == pytest.approx(1 - math.exp(-1), abs=0.04)  # |h|^2 < 1


@pytest.mark.parametrize("fading", ["none", "rayleigh"])
@pytest.mark.parametrize("ebn0_db", [0.0, 4.0, 8.0])
def test_bit_errors_are_as_many_as_the_closed_form_says(fading: str, ebn0_db: float) -> None:
    stage = build_stage("channel", "bitflip", ebn0_db=ebn0_db, fading=fading)
    ratio, each, messages = 10 ** (ebn0_db / 10), 20_000, 400 if fading == "rayleigh" else 20
    layout, wrong = Layout((), (Integers((each,), 8, protected=False),)), 0
    codes = torch.randint(256, (each,), generator=torch.Generator().manual_seed(9))
    for seed in range(messages):
        streams = {"generator": torch.Generator().manual_seed(seed)}
        if fading == "rayleigh":
            streams["block"] = torch.Generator().manual_seed(seed + 10_000)
        got = stage.receive(Payload((), (codes,)), layout, way="up", **streams).integers[0]
        assert int(got.min()) >= 0 and int(got.max()) < 256
        wrong += sum(int(((got ^ codes) >> bit & 1).sum()) for bit in range(8))
    found = wrong / (8 * each * messages)
    if fading == "none":
        expected = 0.5 * math.erfc(math.sqrt(ratio))
        assert found == pytest.approx(expected, abs=5 * math.sqrt(expected / (8 * each * messages)))
    else:  # the mean over gains: its spread is that of 400 of them
        expected = (1 - math.sqrt(ratio / (1 + ratio))) / 2
        assert found == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("chance", [1e-4, 0.01, 0.3, 1.0])
def test_bits_are_turned_over_independently(chance: float) -> None:
    total = 200_000
    at = turned_over(total, chance, torch.Generator().manual_seed(0))
    assert torch.equal(at, at.unique()) and int(at.min()) >= 0 and int(at.max()) < total
    assert len(at) / total == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / total) + 1e-12)
    if 0 < chance < 1:  # evenly: the mean place is the middle
        assert float(at.double().mean()) / total == pytest.approx(0.5, abs=4 / math.sqrt(12 * len(at)))


def test_a_flipped_bit_of_a_float_is_that_bit() -> None:
    values = torch.full((1000,), 1.0)
    found = through(values, "bitflip", rate=0.002)
    differing = found.view(torch.int32) ^ values.view(torch.int32)
    assert 30 < int((differing != 0).sum()) < 110
    assert all(bin(x & 0xFFFFFFFF).count("1") in (1, 2) for x in differing.tolist() if x)


def test_what_is_protected_arrives_at_its_price() -> None:
    layout = Layout(
        (Floats((40,)), Floats((2,), back=0, protected=True)),
        (Integers((30,), 5), Integers((40,), 8, protected=False)), labels_of(SHAPE),
    )  # fmt: skip
    sent = Payload(
        (torch.rand(40), torch.rand(2)), (torch.arange(30), torch.arange(40)), torch.arange(10)
    )  # fmt: skip
    protected = 2 * 32 + 30 * 5 + 10 * 4
    for name, options in (("erasure", {"loss": 1.0}), ("bitflip", {"rate": 0.5})):
        stage = build_stage("channel", name, code_rate=0.4, **options)
        assert stage.fields(layout, "up").uplink_bits == layout.uplink_bits + math.ceil(protected * 1.5)
        on_way = stage.send(sent, layout, way="up", generator=torch.Generator())
        found = stage.receive(on_way, layout, way="up", generator=torch.Generator().manual_seed(0))
        assert torch.equal(found.floats[1], sent.floats[1]) and torch.equal(found.integers[0], sent.integers[0])
        assert found.labels is not None and torch.equal(found.labels, torch.arange(10))
        assert not torch.equal(found.floats[0], sent.floats[0]) and not torch.equal(found.integers[1], sent.integers[1])
        bare = build_stage("channel", name, code_rate=0.4, protect=False, **options)
        assert bare.fields(layout, "up") == layout
        found = bare.receive(sent, layout, way="up", generator=torch.Generator().manual_seed(0))
        assert found.labels is not None and not torch.equal(found.labels, torch.arange(10))
        assert int(found.labels.max()) < 10 and int(found.integers[0].max()) < 32


def test_a_coherence_time_holds_within_a_client_s_round_and_no_longer() -> None:
    fading = stages(
        "base", ("channel", "rayleigh", {"snr_db": 150.0, "knowledge": "none", "coherence": 3, "down": False})
    )
    z = torch.ones(10, 17, 16)

    def gain(client: int, round: int, step: int) -> float:
        key = (client, round, step)
        kept = fading.compress(z, torch.arange(10), None, SHAPE, generator=torch.Generator(), key=key)
        arrived = fading.received(fading.uplink(kept, SHAPE, key=key), torch.device("cpu"))
        return float(arrived.floats[0].detach()[0, 0, 0])

    first = [gain(0, 1, step) for step in range(7)]
    assert first[0] == pytest.approx(first[1], rel=1e-5) == pytest.approx(first[2], rel=1e-5)
    assert first[3] == pytest.approx(first[5], rel=1e-5)
    assert len({round(x, 3) for x in (first[0], first[3], first[6], gain(1, 1, 0), gain(0, 2, 0))}) == 5


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("awgn", {"snr_db": float("nan")}, "channel.snr_db must be a number of decibels, or [least, largest], got nan"),
        ("awgn", {"snr_db": [3, 1]}, "channel.snr_db must be a number of decibels, or [least, largest], got [3, 1]"),
        ("awgn", {"snr_db": [1, 2, 3]}, "channel.snr_db must be a number of decibels"),
        ("awgn", {"snr_db": "high"}, "channel.snr_db must be a number of decibels"),
        ("awgn", {"snr_db": 1e6}, "channel.snr_db must be between -200 and 200 decibels, got 1000000.0"),
        ("awgn", {"code_rate": 0}, "channel.code_rate must be in (0, 1], got 0"),
        ("awgn", {"code_rate": 1.5}, "channel.code_rate must be in (0, 1], got 1.5"),
        ("rayleigh", {"coherence": 0}, "channel.coherence must be at least 1 step, got 0"),
        ("rayleigh", {"knowledge": "some"}, "channel.knowledge must be one of perfect, none, got 'some'"),
        ("rayleigh", {"outage_db": float("inf")}, "channel.outage_db must be a number of decibels or null, got inf"),
        ("erasure", {"loss": 1.1}, "channel.loss must be in [0, 1], got 1.1"),
        ("erasure", {"loss": 1.0, "retransmit": True}, "channel.loss must be in [0, 1), got 1.0"),
        ("erasure", {"packet_bytes": 0}, "channel.packet_bytes must be at least 1, got 0"),
        ("erasure", {"loss": 0.5, "burst": 0.5}, "channel.burst must be at least 1 packets for channel.loss=0.5"),
        ("erasure", {"loss": 0.9, "burst": 2.0}, "channel.burst must be at least 9 packets for channel.loss=0.9"),
        ("erasure", {"fill": "mean"}, "channel.fill must be one of zero, last, got 'mean'"),
        ("bitflip", {}, "one of channel.rate and channel.ebn0_db must be given"),
        ("bitflip", {"rate": 0.1, "ebn0_db": 3}, "one of channel.rate and channel.ebn0_db must be given, not both"),
        ("bitflip", {"rate": 2.0}, "channel.rate must be in [0, 1], got 2.0"),
        ("bitflip", {"rate": float("nan")}, "channel.rate must be in [0, 1], got nan"),
        ("bitflip", {"rate": 0.1, "fading": "rayleigh"}, "channel.fading is of channel.ebn0_db"),
        ("bitflip", {"ebn0_db": 3, "fading": "rice"}, "channel.fading must be one of none, rayleigh, got 'rice'"),
    ],
)
def test_what_cannot_be_is_one_line(name: str, options: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_stage("channel", name, **options)
    assert str(raised.value).startswith(line) and "\n" not in str(raised.value)


@pytest.mark.parametrize("quantizer", [{}, {"up": False}])
def test_codes_are_not_amplitudes(quantizer: dict[str, object]) -> None:
    def price(*behind: tuple[str, str, dict[str, object]]) -> object:
        return PriceList(stages("base", *behind)).step(SHAPE)

    with pytest.raises(ValueError, match="channel=awgn puts values on the air as they are, not a quantiser's codes"):
        price(("quantizer", "uniform", quantizer), ("channel", "awgn", {}))
    price(("quantizer", "uniform", {"up": False}), ("channel", "awgn", {"down": False}))
