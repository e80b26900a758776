"""How many floating-point operations a batch takes, counted by PyTorch on the real halves."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compressors import BatchShape, Payload
from flsplit.split.stages import Stages, go_back

_KEY = (0, 1, 0)  # client, round and step of the batch that is counted


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one batch: matrix products and convolutions, a multiplication and an addition counted as two.

    Attributes:
        forward: of the client-side model and the trained halves beside it, the compressor's and those of stages.
        backward: of all of them.
        server: forward and backward of the server-side model and the halves beside it.
    """

    forward: int
    backward: int
    server: int


def count(client: nn.Module, server: nn.Module, stages: Stages, shape: BatchShape, *, image_size: int) -> Flops:
    """Count on the CPU: the models with one sample, and multiply, for theirs grow with the batch; halves with a batch.

    Args:
        client: gives (activations, scores).
        server: takes activations.
        stages: between them, as both sides have them; what a batch of noise does to them is left in them.
        shape: of the batch.
        image_size: side of the model's input, pixels.
    """
    client, server, compressor = _evaluated(client), _evaluated(server), stages.compressor
    for half in (*stages.halves("client"), *stages.halves("server")):
        half.eval()
    trained = compressor.client_half is not None or compressor.server_half is not None
    z, labels, scores, stream = _noise(shape)
    found: Counter[str] = Counter()
    with _counted(found, "forward", shape.batch):
        one, _ = client(torch.zeros(1, 3, image_size, image_size))
    with _counted(found, "backward", shape.batch):
        _back([one] if stages.answers else [])

    z.requires_grad_(one.requires_grad)
    with _counted(found, "forward", trained):
        payload = compressor.compress(z, labels, scores, generator=stream)
    if not trained:
        payload = _without_graph(payload)
    with _counted(found, "forward"):
        payload = stages.sent(payload, shape, key=_KEY)
    with _counted(found, "backward"):
        _back(t for t, answered in zip(payload.floats, stages.route(shape).answered, strict=True) if answered)

    uplink = stages.uplink(payload, shape, key=_KEY)
    arrived = stages.received(uplink, torch.device("cpu"))
    with _counted(found, "server"):
        payload = stages.compressed(arrived, uplink)
    with _counted(found, "server", trained):
        activations, _ = compressor.decompress(payload, shape)
    with _counted(found, "server"):
        _back([activations] if trained else payload.floats)
    one = torch.zeros(1, *activations.shape[1:], requires_grad=activations.requires_grad)
    with _counted(found, "server", len(activations)):
        _back([server(one)])
    return Flops(**found)


@contextmanager
def _counted(found: Counter[str], part: str, times: int = 1) -> Iterator[None]:
    """Add the operations within, so many times, to those of a part."""
    with FlopCounterMode(display=False) as counter:
        yield
    found[part] += times * counter.get_total_flops()


def _back(tensors: Iterable[Tensor]) -> None:
    """Go backward from those that have a graph."""
    go_back([(t, torch.ones_like(t)) for t in tensors if t.requires_grad])


def _without_graph(payload: Payload) -> Payload:
    """A payload for whose floats gradients end."""
    return replace(payload, floats=tuple(t.detach().requires_grad_(t.requires_grad) for t in payload.floats))


def _evaluated(model: nn.Module) -> nn.Module:
    """A copy on the CPU. Attention in single operations counts the same wherever it runs.

    It is in evaluation mode, which has the same products: batch normalisation cannot be trained on a single sample.
    """
    model = copy.deepcopy(model).cpu().eval()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 (no Tensor, whatever mypy thinks of it)
    return model


def _noise(shape: BatchShape) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
    """Activations, labels and scores of a batch, and what a compressor draws from."""
    stream = torch.Generator().manual_seed(0)
    z = torch.randn(shape.batch, shape.tokens, shape.width, generator=stream)
    scores = torch.rand(shape.batch, shape.tokens, generator=stream)
    return z, torch.arange(shape.batch) % shape.classes, scores, stream
