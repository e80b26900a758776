"""Compression of split-learning activations: one method, one module, pure PyTorch.

`build` turns a name and options into a `Compressor`; a new method is a new module beside the others (or
anywhere, under its dotted path) that defines one subclass.

Example:
    >>> import torch
    >>> from compressors import BatchShape, build
    >>> adc = build("adc", ratio=0.1)
    >>> z, y = torch.randn(8, 17, 4), torch.arange(8) % 3
    >>> s = torch.rand(8, 17).softmax(1)
    >>> payload = adc.compress(z, y, s, generator=torch.Generator().manual_seed(0))
    >>> received, targets = adc.decompress(payload, BatchShape(batch=8, tokens=17, width=4, classes=3))
    >>> tuple(received.shape), tuple(targets.shape)
    ((2, 5, 4), (2, 3))
"""

from compressors.cohort import Cohort, Joined, Share
from compressors.interface import (
    BatchShape,
    Compressor,
    Floats,
    Integers,
    Layout,
    Payload,
    bits_for,
    hard_labels,
    labels_of,
    onto,
)
from compressors.lost import Lost, filled
from compressors.registry import STAGES, available, build, build_stage
from compressors.stage import Stage, Way

__all__ = [
    "STAGES", "BatchShape", "Cohort", "Compressor", "Floats", "Integers", "Joined", "Layout", "Lost", "Payload",
    "Share", "Stage", "Way", "available", "bits_for", "build", "build_stage", "filled", "hard_labels", "labels_of",
    "onto",
]  # fmt: skip
