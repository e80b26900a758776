"""A step before the first, for compressors and stages that are not flsplit's own: is it the same when repeated?

What they draw elsewhere than from their `generator`, or keep elsewhere than in their halves, would make numbers that no
second run has, nor another engine, nor the same run when it is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressors import Compressor, Stage
from flsplit.assembly import Assembly
from flsplit.errors import UserError, no_exit
from flsplit.split.side import Side
from flsplit.split.stages import Stages, halves_of


def check(assembly: Assembly, client: Side, server: Side) -> None:
    """Refuse compressors and stages that give other values for the same batch and the same random numbers.

    Args:
        assembly: of the run.
        client: a client side of it, whose parts may be changed by this.
        server: a server side likewise.

    Raises:
        UserError: naming the part.
    """
    sides = client.stages, server.stages
    foreign = [part for part in _parts(sides[0]) if not type(part).__module__.startswith(_OURS)]
    if not foreign or not assembly.plan.split:
        return
    try:
        for half in _halves(sides):
            half.to("cpu")  # where sums are the same every time
        before = [{name: value.clone() for name, value in half.state_dict().items()} for half in _halves(sides)]
        with torch.random.fork_rng(devices=[]), no_exit():
            first = _step(assembly, *sides)
            for half, state in zip(_halves(sides), before):
                half.load_state_dict(state)
            second = _step(assembly, *sides)
    except UserError:
        raise
    except Exception:
        return  # it fails in the first step too, where the run tells of it, and keeps its traceback
    finally:
        for half in _halves(sides):
            half.to(assembly.device)
    if len(first) != len(second) or not all(map(_same, first, second)):
        raise UserError(
            f"{' and '.join(map(_called, foreign))}: the same batch gives other values when it is repeated; random "
            "numbers must come from the `generator` that each method is given, and what is kept from step to step "
            "must be buffers of client_half or server_half"
        )


_OURS = "compressors."


def _halves(sides: Sequence[Stages]) -> list[nn.Module]:
    return [half for stages in sides for part in _parts(stages) for half in halves_of(part)]


def _parts(stages: Stages) -> list[Compressor | Stage]:
    return [stages.compressor, *stages.behind]


def _step(assembly: Assembly, client: Stages, server: Stages) -> list[Tensor]:
    """All that a made-up batch becomes on its way up and down."""
    size, key = assembly.config.batch_size, (0, 1, 0)
    shape = assembly.shape(size)
    numbers = torch.Generator().manual_seed(0)
    z = torch.randn(size, shape.tokens, shape.width, generator=numbers).requires_grad_()
    y = torch.randint(shape.classes, (size,), generator=numbers)
    s = torch.rand(size, shape.tokens, generator=numbers).softmax(1)
    with assembly.autocast():
        sent = client.compress(z, y, s, shape, generator=assembly.stream(0, 1)(0), key=key)
        uplink = client.uplink(sent, shape, key=key)
        arrived = server.received(uplink, z.device)
        received, targets = server.decompress(arrived, uplink)
        _check_order(server.compressor, y, targets)
    found = [*sent.floats, *uplink.payload.floats, *uplink.payload.integers, received, targets]
    if received.requires_grad:
        received.float().square().mean().backward()
        downlink = server.downlink(uplink, arrived)
        found += downlink.payload.floats
        found += [gradient for _, gradient in client.answered(sent, uplink, downlink)]
    return [value.detach().clone() for value in found]


def _check_order(compressor: Compressor, labels: Tensor, targets: Tensor) -> None:
    """Refuse an evaluation that would score one sample's logits with another's label."""
    if not compressor.at_eval or type(compressor).expand is not Compressor.expand:
        return
    if len(targets) != len(labels) or (targets.dim() == 1 and not torch.equal(targets, labels)):
        raise UserError(
            f"compressor.at_eval must be false: compressor={compressor.name} gives activations of other samples than "
            "came, or in another order; with a method `expand`, which gives each sample its logits, it could be true"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _called(part: Compressor | Stage) -> str:
    return f"compressor={part.name}" if isinstance(part, Compressor) else part.name
