"""Fading of Sionna's (Hoydis et al. 2022, arXiv 2203.11854), which is an extra: `pip install "flsplit[sionna]"`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from compressors.channels.analogue import Analogue, gaussian
from compressors.interface import onto
from compressors.options import choice

MODELS = ("rayleigh", "tdl_a", "tdl_b", "tdl_c", "tdl_d", "tdl_e")
KNOWN = ("perfect", "none")


class Sionna(Analogue):
    """Values as amplitudes on the subcarriers of OFDM symbols: two are one complex symbol, y = h x + n on each.

    `rayleigh` is Sionna's block fading, one gain for a message; `tdl_a` to `tdl_e` are the tapped delay lines of 3GPP
    TR 38.901, whose gains differ from subcarrier to subcarrier and from symbol to symbol. Their mean power is 1. No
    symbol disturbs its neighbours: the cyclic prefix is taken to be long enough.

    Args:
        model: of `MODELS`.
        delay_spread_ns: root mean square of a delay line's delays.
        carrier_ghz: carrier frequency.
        speed_kmh: of the client.
        subcarriers: of an OFDM symbol.
        spacing_khz: between subcarriers.
        coherence: steps of a client's round that begin with the same gains.
        knowledge: of the gains at the receiver: `perfect` (it divides by them) or `none`.
        snr_db: see `Analogue`, as are the others; the mean over fading.
        up: whether activations are disturbed.
        down: whether gradients are.
        code_rate: of what is protected.
        at_eval: whether models are evaluated through it as well.

    Raises:
        ValueError: for a value that cannot be, or if Sionna is not installed.
    """

    def __init__(
        self, *, model: str = "tdl_a", delay_spread_ns: float = 100.0, carrier_ghz: float = 3.5, speed_kmh: float = 3.0,
        subcarriers: int = 64, spacing_khz: float = 30.0, coherence: int = 1, knowledge: str = "perfect",
        snr_db: float | list[float] = 10.0, up: bool = True, down: bool = True, code_rate: float = 0.5,
        at_eval: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(snr_db=snr_db, up=up, down=down, code_rate=code_rate, at_eval=at_eval)
        self._model = choice("model", model, MODELS, group="channel")
        self._known = choice("knowledge", knowledge, KNOWN, group="channel") == "perfect"
        numbers = {"delay_spread_ns": delay_spread_ns, "carrier_ghz": carrier_ghz, "spacing_khz": spacing_khz}
        for key, value in numbers.items():
            if not 0 < value < math.inf:
                raise ValueError(f"channel.{key} must be a number above 0, got {value:g}")
        if not 0 <= speed_kmh < math.inf:
            raise ValueError(f"channel.speed_kmh must be a number of at least 0, got {speed_kmh:g}")
        for key, count in (("subcarriers", subcarriers), ("coherence", coherence)):
            if count < 1:
                raise ValueError(f"channel.{key} must be at least 1, got {count}")
        self._delay, self._carrier, self._speed = 1e-9 * delay_spread_ns, 1e9 * carrier_ghz, speed_kmh / 3.6
        self._subcarriers, self._spacing, self.coherence = subcarriers, 1e3 * spacing_khz, coherence
        self._phy = _phy()

    def through(self, values: Tensor, noise: float, *, generator: torch.Generator, block: torch.Generator) -> Tensor:
        """See `Analogue`."""
        count = len(values)
        padded = torch.cat([values, values.new_zeros(count % 2)])
        gains = onto(self._gains(len(padded) // 2, block), values.device)
        hiss = gaussian(padded, generator).mul_(noise).view(-1, 2)
        if self._known:  # dividing noise by h turns its phase, which changes nothing about it
            arrived = padded.view(-1, 2) + hiss / gains.abs().unsqueeze(1)
        else:
            symbols = torch.view_as_complex(padded.float().view(-1, 2))
            arrived = torch.view_as_real(gains * symbols) + hiss
        return arrived.flatten()[:count]

    def _gains(self, count: int, block: torch.Generator) -> Tensor:
        """Complex gains of so many symbols (count,); Sionna draws from a generator of its own, seeded for each call."""
        phy = self._phy
        phy.config.seed = int(torch.randint(2**31 - 1, (), generator=block))
        if self._model == "rayleigh":
            gain, _ = phy.channel.RayleighBlockFading(1, 1, 1, 1, device="cpu")(batch_size=1, num_time_steps=1)
            return gain.flatten().expand(count)
        symbols = -(-count // self._subcarriers)
        line = phy.channel.tr38901.TDL(
            self._model[-1].upper(), self._delay, self._carrier, min_speed=self._speed, max_speed=self._speed,
            device="cpu",
        )  # fmt: skip
        gains, delays = line(batch_size=1, num_time_steps=symbols, sampling_frequency=self._spacing)
        frequencies = phy.channel.subcarrier_frequencies(self._subcarriers, self._spacing, device="cpu")
        return phy.channel.cir_to_ofdm_channel(frequencies, gains, delays).flatten()[:count]


def _phy() -> Any:
    try:
        import sionna.phy
        import sionna.phy.channel.tr38901
    except ImportError as error:
        raise ValueError(f'channel=sionna needs Sionna: pip install "flsplit[sionna]" ({error})') from None
    return sionna.phy
