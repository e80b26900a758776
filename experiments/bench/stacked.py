"""`stacked`: the steps of several clients as one, their models stacked by `torch.func`, over one after another.

flsplit takes them one after another; this is what it would gain. Both sides are plain training loops of the whole
model without compression, one step of every client in turn or of all at once, each client with weights and Adam
moments of its own. Stacked, a client's loss is summed with the others', which leaves its gradients as they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from experiments.bench.case import Result, compare
from experiments.bench.workload import LR, Workload

CPU = Workload(model="vit_micro", size=8, steps=4)
GPU = Workload(size=224, steps=20, precision="bf16", device="cuda")
CLIENTS, BATCHES = (8, 32), (8, 16, 32)


def run(*, pairs: int) -> Iterator[Result]:
    """Steps per second, by number of clients and batch size."""
    workload = GPU if torch.cuda.is_available() else CPU
    for clients in CLIENTS:
        for batch in BATCHES:
            yield compare(
                "stacked", f"steps/s of {clients} clients stacked, B={batch}, over one after another",
                partial(steps_per_second, Together(workload, clients), workload, clients, batch),
                partial(steps_per_second, InTurn(workload, clients), workload, clients, batch),
                pairs=pairs, goal=1.5, at_least=True,
                note=f"{workload.model} {workload.size} px, {workload.precision}, {workload.device}",
            )  # fmt: skip


class InTurn:
    """A step of each client's own model, one client after another."""

    def __init__(self, workload: Workload, clients: int) -> None:
        self._models = [workload.vit() for _ in range(clients)]
        self._optimizers = [torch.optim.Adam(model.parameters(), lr=LR) for model in self._models]
        self._autocast = workload.autocast

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Take images (clients, B, 3, S, S) and labels (clients, B)."""
        for model, optimizer, x, y in zip(self._models, self._optimizers, images, labels):
            with self._autocast():
                logits = model(x)
            F.cross_entropy(logits.float(), y).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def weights(self) -> dict[str, Tensor]:
        """Every parameter of all clients, (clients, ...)."""
        return dict(stack_module_state(self._models)[0])  # type: ignore[arg-type]


class Together:
    """The same steps at once: every parameter has a leading dimension of clients."""

    def __init__(self, workload: Workload, clients: int) -> None:
        model = workload.vit()
        for block in model.blocks:
            block.attn.fused_attn = False  # matrix products: the fused attention would be taken client by client
        self._parameters, buffers = stack_module_state([model] * clients)  # type: ignore[arg-type]
        assert not buffers, "a model with buffers needs them stacked as well"
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=LR)
        self._forward = vmap(lambda weights, x: functional_call(model, weights, (x,)))
        self._autocast = workload.autocast

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Take images (clients, B, 3, S, S) and labels (clients, B)."""
        with self._autocast():
            logits = self._forward(self._parameters, images)
        losses = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
        losses.view(len(labels), -1).mean(1).sum().backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def weights(self) -> dict[str, Tensor]:
        """Every parameter of all clients, (clients, ...)."""
        return dict(self._parameters)


def steps_per_second(step: InTurn | Together, workload: Workload, clients: int, batch: int) -> float:
    """Steps of single clients per second, on images made beforehand."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(clients, batch, 3, workload.size, workload.size, generator=generator).to(workload.device)
    labels = torch.randint(workload.classes, (clients, batch), generator=generator).to(workload.device)
    workload.wait()
    began = time.perf_counter()
    for _ in range(workload.steps):
        step(images, labels)
    workload.wait()
    return workload.steps * clients / (time.perf_counter() - began)
