"""How many floating-point operations a batch takes, counted by PyTorch on the real halves."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressors import BatchShape, Compressor, Payload


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one batch: matrix products and convolutions, a multiplication and an addition counted as two.

    Attributes:
        forward: of the client-side model and the compressor's trained half.
        backward: of both.
        server: forward and backward of the server-side model and the compressor's other half.
    """

    forward: int
    backward: int
    server: int


def count(
    client: nn.Module, server: nn.Module, compressor: Compressor, shape: BatchShape, *, image_size: int, answers: bool
) -> Flops:
    """Count on the CPU with one sample, and multiply: operations grow with the batch.

    Args:
        client: gives (activations, scores).
        server: takes activations.
        compressor: between them.
        shape: of the batch.
        image_size: side of the model's input, pixels.
        answers: whether gradients come back to the client.
    """
    client, server = _counted(client), _counted(server)
    trained = copy.deepcopy(compressor) if compressor.client_half or compressor.server_half else None
    one, labels = replace(shape, batch=1), torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as forward:
        z, scores = client(torch.zeros(1, 3, image_size, image_size))
        sent = (z,) if trained is None else trained.compress(z, labels, scores).floats
    with FlopCounterMode(display=False) as backward:
        if answers:
            torch.autograd.backward(list(sent), [torch.ones_like(t) for t in sent])
    rows, *each = _received(compressor, shape)
    with FlopCounterMode(display=False) as at_server:
        if trained is None:
            received = torch.zeros(1, *each, requires_grad=answers)
        else:
            floats = tuple(torch.zeros_like(t, requires_grad=True) for t in sent)
            received, _ = trained.decompress(Payload(floats, labels=labels), one)
        server(received).sum().backward()
    return Flops(
        forward=shape.batch * forward.get_total_flops(), backward=shape.batch * backward.get_total_flops(),
        server=rows * at_server.get_total_flops(),
    )  # fmt: skip


def _counted(model: nn.Module) -> nn.Module:
    """A copy on the CPU. Attention in single operations counts the same wherever it runs.

    It is in evaluation mode, which has the same products: batch normalisation cannot be trained on a single sample.
    """
    model = copy.deepcopy(model).cpu().eval()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 (no Tensor, whatever mypy thinks of it)
    return model


def _received(compressor: Compressor, shape: BatchShape) -> tuple[int, ...]:
    """Shape of the activations that the server-side model is trained on, from one batch of noise."""
    compressor, stream = copy.deepcopy(compressor), torch.Generator().manual_seed(0)
    z = torch.randn(shape.batch, shape.tokens, shape.width, generator=stream)
    scores = torch.rand(shape.batch, shape.tokens, generator=stream)
    labels = torch.arange(shape.batch) % shape.classes
    with torch.no_grad():
        payload = compressor.compress(z, labels, scores, generator=stream)
        activations, _ = compressor.decompress(payload, shape)
    return tuple(activations.shape)
