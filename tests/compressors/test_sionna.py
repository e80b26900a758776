"""Our channels beside Sionna's, and Sionna's behind the same interface."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from test_channels import gains, through

from compressors import build_stage

phy = pytest.importorskip("sionna.phy")


def test_noise_has_the_power_of_sionnas() -> None:
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    for snr_db in (0.0, 10.0):
        ours = through(values, "awgn", snr_db=snr_db) - values
        phy.config.seed = 1
        symbols = torch.view_as_complex(values.view(-1, 2)) / values.square().mean().sqrt() / math.sqrt(2)
        theirs = phy.channel.AWGN(device="cpu")(symbols, 10 ** (-snr_db / 10)) - symbols  # Es = 1
        found = 10 * math.log10(float(values.square().mean() / ours.square().mean()))
        expected = 10 * math.log10(float(symbols.abs().square().mean() / theirs.abs().square().mean()))
        assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.slow
def test_gains_are_distributed_as_sionnas() -> None:
    phy.config.seed = 2
    theirs, _ = phy.channel.RayleighBlockFading(1, 1, 1, 1, device="cpu")(batch_size=4000, num_time_steps=1)
    ours = torch.tensor(gains(4000)).double().sort().values
    theirs = theirs.abs().square().flatten().double().sort().values
    # Kolmogorov and Smirnov: at 0.1% two samples of 4,000 of one distribution differ by less than 0.0436.
    at = torch.cat([ours, theirs])
    distance = (torch.searchsorted(ours, at) - torch.searchsorted(theirs, at)).abs().max() / 4000
    assert float(distance) < 0.0436


@pytest.mark.parametrize("fading", ["none", "rayleigh"])
def test_bit_errors_are_as_many_as_over_sionnas_link(fading: str) -> None:
    phy.config.seed = 3
    ratio, blocks, each = 10 ** (5 / 10), 4000, 50
    bits = torch.randint(2, (blocks, each), generator=torch.Generator().manual_seed(0))
    symbols = (1.0 - 2.0 * bits).to(torch.complex64)
    gain = torch.ones(blocks, 1, dtype=torch.complex64)
    if fading == "rayleigh":
        fades = phy.channel.RayleighBlockFading(1, 1, 1, 1, device="cpu")
        gain = fades(batch_size=blocks, num_time_steps=1)[0].view(blocks, 1)
    received = phy.channel.AWGN(device="cpu")(gain * symbols, 1 / ratio)
    wrong = float((((received / gain).real < 0).long() != bits).double().mean())
    stage, chances = build_stage("channel", "bitflip", ebn0_db=5.0, fading=fading), []
    for seed in range(blocks):
        block = torch.Generator().manual_seed(seed) if fading == "rayleigh" else None
        chances.append(stage._chance(torch.Generator(), block))  # type: ignore[attr-defined]
    assert wrong == pytest.approx(sum(chances) / blocks, rel=0.12)


@pytest.mark.some
@pytest.mark.parametrize("model", ["rayleigh", "tdl_a", "tdl_d"])
def test_sionnas_fading_has_a_mean_power_of_one_and_is_the_same_again(model: str) -> None:
    values, keys = torch.ones(2000), {"model": model, "snr_db": 150.0, "knowledge": "none"}
    powers = [float(through(values, "sionna", seed, **keys).square().mean()) for seed in range(300)]
    assert sum(powers) / 300 == pytest.approx(1.0, abs=0.2)
    assert torch.equal(through(values, "sionna", 7, **keys), through(values, "sionna", 7, **keys))
    assert torch.allclose(through(values, "sionna", 7, model=model, snr_db=150.0), values, atol=1e-3)
    one = torch.view_as_complex(through(values, "sionna", 7, **keys).view(-1, 2))
    assert (float((one - one[0]).abs().max()) < 1e-3) == (model == "rayleigh")  # a line is not the same for all symbols


def test_without_sionna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sionna.phy", None)
    with pytest.raises(ValueError, match=r'^channel=sionna needs Sionna: pip install "flsplit\[sionna\]"'):
        build_stage("channel", "sionna")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"model": "tdl_z"}, "channel.model must be one of rayleigh, tdl_a"),
        ({"delay_spread_ns": 0.0}, "channel.delay_spread_ns must be a number above 0, got 0"),
        ({"speed_kmh": -1.0}, "channel.speed_kmh must be a number of at least 0, got -1"),
        ({"subcarriers": 0}, "channel.subcarriers must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_one_line(options: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_stage("channel", "sionna", **options)
    assert str(raised.value).startswith(line)
