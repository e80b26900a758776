"""Uniform quantisation: each sample's values, or gradients, on 2^bits levels between their least and their largest."""

import torch

from compressors import Floats, Integers, Layout, Payload, Stage


class Uniform8(Stage):
    """Every field of floats becomes a field of codes and one of ranges, two floats for each sample.

    Args:
        bits: of each value, 1 to 16.
        downlink: whether gradients are quantised too.
    """

    def __init__(self, *, bits: int = 8, downlink: bool = True) -> None:
        if not 1 <= bits <= 16:
            raise ValueError(f"quantizer.bits must be in [1, 16], got {bits}")
        self.bits, self.ways = bits, ("up", "down") if downlink else ("up",)

    def fields(self, layout, way):
        codes = tuple(Integers(field.shape, self.bits, protected=False) for field in layout.floats)
        ranges = tuple(Floats((field.shape[0], 2), back=0, protected=True) for field in layout.floats)
        return Layout(ranges, (*layout.integers, *codes), layout.labels)

    def nominal(self, way):
        return self.bits / 32

    def send(self, payload, layout, *, way, generator):
        ranges, codes = [], []
        for values in payload.floats:
            flat = values.flatten(1)
            low, step = flat.amin(1, keepdim=True), (flat.amax(1, keepdim=True) - flat.amin(1, keepdim=True))
            step = (step / (2**self.bits - 1)).clamp(min=torch.finfo(step.dtype).tiny)
            ranges.append(torch.cat([low, step], 1))
            codes.append(((flat - low) / step).round().clamp(0, 2**self.bits - 1).long().view_as(values))
        return Payload(tuple(ranges), (*payload.integers, *codes), payload.labels)

    def receive(self, payload, layout, *, way, generator):
        others = len(layout.integers)
        floats = []
        for field, sent, codes in zip(layout.floats, payload.floats, payload.integers[others:], strict=True):
            floats.append((sent[:, :1] + sent[:, 1:] * codes.view(field.shape[0], -1)).view(field.shape))
        return Payload(tuple(floats), payload.integers[:others], payload.labels)
