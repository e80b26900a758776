"""Additive white Gaussian noise at a given ratio of signal to noise, over each field of floats."""

import torch

from compressors import Payload, Stage


class Hiss(Stage):
    """What arrives is what was sent plus noise; it costs nothing.

    Args:
        snr_db: mean square of a field over that of its noise, in decibels.
        downlink: whether gradients are disturbed too.
    """

    def __init__(self, *, snr_db: float = 20.0, downlink: bool = False) -> None:
        self.snr_db, self.ways = snr_db, ("up", "down") if downlink else ("up",)

    def receive(self, payload, layout, *, way, generator):
        share = 10 ** (-self.snr_db / 20)
        floats = []
        for values in payload.floats:
            noise = torch.randn(values.shape, generator=generator).to(values.device)
            floats.append(values + noise * values.square().mean().sqrt() * share)
        return Payload(tuple(floats), payload.integers, payload.labels)
