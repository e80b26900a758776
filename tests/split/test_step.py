"""One training step, seen by a sceptic: two models, two graphs, and only detached tensors between them."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from compressors import BatchShape, Compressor, Payload, build, hard_labels
from flsplit.split.host import ServerHost
from flsplit.split.messages import Downlink, Uplink
from flsplit.split.model import build as build_model
from flsplit.split.model import cut
from flsplit.split.side import Side, SideState
from flsplit.split.stages import Stages
from flsplit.split.trainer import local_pass

CPU = torch.device("cpu")
OPTIONS = {"adc": {"ratio": 0.3}, "topk": {"rate": 0.2}, "randtopk": {"rate": 0.2}, "bottlenet": {"ratio": 0.3}}


def sides(name: str) -> tuple[Side, ServerHost, SideState]:
    """A client side, a host, and the server-side state that a round starts from."""
    vit = build_model("vit_micro", classes=10, image_size=8, pretrained=False, seed=0).train()
    client_model, server_model = cut(vit, 3)

    def compressor() -> Compressor:
        generator = torch.Generator().manual_seed(1)
        return build(name, **OPTIONS.get(name, {})).bind(tokens=17, width=64, generator=generator)

    def server() -> Side:
        stages = Stages(compressor())
        return Side(copy.deepcopy(server_model), stages, halves=stages.halves("server"), lr=1e-3, device=CPU)

    stages = Stages(compressor())
    client = Side(client_model, stages, halves=stages.halves("client"), lr=1e-3, device=CPU)
    return client, ServerHost(server, autocast=nullcontext), server().state()


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(4)
    return [(torch.randn(8, 3, 8, 8, generator=g), torch.randint(10, (8,), generator=g)) for _ in range(count)]


def reachable(tensor: Tensor) -> set[int]:
    """Addresses of all tensors that a graph leads back to."""
    found, seen, queue = set(), set(), [tensor.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable.data_ptr())
        queue += [parent for parent, _ in node.next_functions]
    return found


@pytest.mark.some
@pytest.mark.parametrize("name", ["base", "adc", "topk", "randtopk", "c3sl", "bottlenet"])
def test_only_detached_tensors_cross(name: str) -> None:
    client, host, start = sides(name)
    host.begin(start, shared=True)
    host.open(0)
    data = batches()
    loop = local_pass(
        client, data, client=0, round=1, classes=10, stages=client.stages,
        stream=lambda step: torch.Generator().manual_seed(step), autocast=nullcontext,
    )  # fmt: skip
    images = {x.data_ptr() for x, _ in data}
    client_weights = {p.data_ptr() for p in client.parameters}
    uplink = next(loop)
    for step in range(len(data)):
        assert isinstance(uplink, Uplink)
        for tensor in (*uplink.payload.floats, *uplink.payload.integers, hard_labels(uplink.payload)):
            assert tensor.grad_fn is None and not tensor.requires_grad
            assert tensor.data_ptr() not in images and tensor.numel() != data[step][0].numel()
        before = [p.clone() for p in client.parameters]
        downlink = host.step(uplink)
        assert isinstance(downlink, Downlink)
        assert all(torch.equal(a, b) for a, b in zip(before, client.parameters)), "the server touched the client"
        assert not any(p.grad.any() for p in client.parameters if p.grad is not None)
        for gradient, sent in zip(downlink.payload.floats, uplink.payload.floats, strict=True):
            assert gradient.grad_fn is None and gradient.shape == sent.shape
        assert host._shared is not None
        assert client_weights.isdisjoint(p.data_ptr() for p in host._shared.parameters)
        try:
            uplink = loop.send(downlink)
        except StopIteration:
            assert step == len(data) - 1


def test_the_servers_graph_ends_at_what_it_received(monkeypatch: pytest.MonkeyPatch) -> None:
    client, host, start = sides("base")
    host.begin(start, shared=True)
    host.open(0)
    losses: list[Tensor] = []
    backward = Tensor.backward
    monkeypatch.setattr(Tensor, "backward", lambda t, *a, **k: (losses.append(t), backward(t, retain_graph=True))[1])
    loop = local_pass(
        client,
        batches(1),
        client=0,
        round=1,
        classes=10,
        stages=client.stages,
        stream=lambda step: torch.Generator(),
        autocast=nullcontext,
    )
    uplink = next(loop)
    host.step(uplink)
    leaves = reachable(losses[0])
    assert uplink.payload.floats[0].data_ptr() in leaves
    assert leaves.isdisjoint(p.data_ptr() for p in client.parameters)


def test_replicas_are_apart_and_a_shared_model_is_one() -> None:
    client, host, start = sides("base")
    payload = Payload((client.model(torch.zeros(4, 3, 8, 8))[0].detach(),), labels=torch.arange(4))
    shape = BatchShape(batch=4, tokens=17, width=64, classes=10)
    host.begin(start, shared=True)
    for client in (0, 1):
        host.open(client)
        host.step(Uplink(client=client, shape=shape, payload=payload))
    assert host.close(0, moments=True).replica is None
    moments = host.shared_state(moments=True).moments
    assert moments is not None and moments[-1] == 2  # both clients' steps are in it


def test_a_replica_starts_from_the_rounds_state() -> None:
    client, host, start = sides("base")
    host.begin(start, shared=False)
    for number in (0, 1):
        host.open(number)
        [batch] = batches(1)
        loop = local_pass(
            client,
            [batch],
            client=number,
            round=1,
            classes=10,
            stages=client.stages,
            stream=lambda step: torch.Generator(),
            autocast=nullcontext,
        )
        host.step(next(loop))
    first, second = host.close(0, moments=True), host.close(1, moments=True)
    assert first.replica is not None and second.replica is not None
    assert torch.equal(first.replica.weights, second.replica.weights) and first.loss == second.loss > 0
    assert not torch.equal(first.replica.weights, start.weights)


@pytest.mark.parametrize("shared", [True, False])
def test_a_step_that_broke_off_leaves_nothing_in_the_next_clients(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward_and_fail(loss: Tensor) -> None:
        torch.autograd.backward(loss)
        raise MemoryError

    client, host, start = sides("base")
    payload = Payload((client.model(batches(1)[0][0])[0].detach(),), labels=torch.arange(8))
    shape = BatchShape(batch=8, tokens=17, width=64, classes=10)
    weights = []
    for breaks_off in (False, True):
        host.begin(start, shared=shared)
        if breaks_off:
            host.open(0)
            with monkeypatch.context() as patched, pytest.raises(MemoryError):
                patched.setattr(Tensor, "backward", backward_and_fail)
                host.step(Uplink(client=0, shape=shape, payload=payload))
            if not shared:
                host.close(0, moments=False)  # its side goes to the next client
        host.open(1)
        host.step(Uplink(client=1, shape=shape, payload=payload))
        replica = host.close(1, moments=False).replica
        weights.append((replica or host.shared_state(moments=False)).weights)
    assert torch.equal(*weights)
