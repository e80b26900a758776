"""`single`: one client without compression, over a plain PyTorch loop on the same model, data and transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from experiments.bench.case import Result, compare
from experiments.bench.workload import LR, Workload

CPU = Workload(steps=12)


def run(*, pairs: int, workload: Workload = CPU, case: str = "single") -> Iterator[Result]:
    """Samples per second, ours over the plain loop's."""
    with workload.made() as made:
        yield compare(
            case, "samples/s of one client (base, inline) over a plain PyTorch loop", made.run,
            lambda: made.timed(plain_step(made)), pairs=pairs, goal=0.98, at_least=True, note=str(made),
        )  # fmt: skip


def plain_step(workload: Workload) -> Callable[[Tensor, Tensor], Tensor]:
    """A training step of the uncut model, which returns its loss."""
    model = workload.vit()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        with workload.autocast():
            logits = model(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step
