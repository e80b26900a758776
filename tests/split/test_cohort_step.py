"""A step of clients that are compressed as one: against one graph over all of them, and its price in bits and bytes."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from math import log2

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compressors import BatchShape, Layout, Stage, build, build_stage
from compressors.adc import ADC
from flsplit.ledger.prices import PriceList, Tally
from flsplit.split.codec import pack, unpack, wire_bytes
from flsplit.split.host import ServerHost
from flsplit.split.messages import Downlink, Grouping, Message, Proposal, Uplink
from flsplit.split.model import build as build_model
from flsplit.split.model import cut
from flsplit.split.side import Side
from flsplit.split.stages import Stages
from flsplit.split.trainer import LocalPass, local_pass
from flsplit.streams import torch_stream

CPU, TOKENS, WIDTH, CLASSES = torch.device("cpu"), 17, 64, 10
SIZES = (8, 3, 5)
OPTIONS = {"ratio": 0.3, "scope": "cohort"}
CHANNELS = {"bitflip": {"rate": 1e-3}, "erasure": {"loss": 0.5, "protect": False, "packet_bytes": 20}}


def stages(*behind: Stage, **options: str) -> Stages:
    adc = build("adc", **OPTIONS, **options).bind(tokens=TOKENS, width=WIDTH)
    layout, shape = adc.layout(shape_of(8)), shape_of(8)
    for stage in behind:
        stage.bind(layout, shape, generator=torch.Generator())
        layout = stage.fields(layout, "up")
    return Stages(adc, behind, draw=lambda *key: torch_stream(0, "stage", *key))


def shape_of(batch: int, groups: int | None = None) -> BatchShape:
    return BatchShape(batch=batch, tokens=TOKENS, width=WIDTH, classes=CLASSES, groups=groups)


def stream(client: int, round: int, step: int = 0) -> torch.Generator:
    return torch_stream(9, "compressor", client, round, step)


class Clients:
    """Clients with a side each, their batches, and a host that they share."""

    def __init__(self, *behind: str, sizes: tuple[int, ...] = SIZES, steps: int = 1, **options: str) -> None:
        vit = build_model("vit_micro", classes=CLASSES, image_size=8, pretrained=False, seed=0).train()
        client_model, self.server_model = cut(vit, 3)
        made = [
            build_stage("quantizer" if name in ("uniform", "fp16") else "channel", name, **CHANNELS.get(name, {}))
            for name in behind
        ]
        self.stages = stages(*made, **options)
        self.sides = [Side(copy.deepcopy(client_model), self.stages, lr=1e-3, device=CPU) for _ in sizes]
        self.host = ServerHost(
            lambda: Side(copy.deepcopy(self.server_model), self.stages, lr=1e-3, device=CPU), autocast=nullcontext,
            stream=lambda client, round: lambda step: stream(client, round, step),
        )  # fmt: skip
        self.host.begin(Side(copy.deepcopy(self.server_model), self.stages, lr=1e-3, device=CPU).state(), shared=True)
        g = torch.Generator().manual_seed(4)
        self.batches = [
            [(torch.randn(n, 3, 8, 8, generator=g), torch.randint(CLASSES, (n,), generator=g))] * steps for n in sizes
        ]
        self.loops: list[LocalPass] = []
        for client, (side, batches) in enumerate(zip(self.sides, self.batches)):
            self.host.open(client)
            self.loops.append(local_pass(
                side, batches, client=client, round=1, classes=CLASSES, stages=self.stages,
                stream=lambda step, client=client: stream(client, 1, step), autocast=nullcontext, shared=True,
            ))  # fmt: skip

    def propose(self) -> list[Proposal]:
        return [next(loop) for loop in self.loops]

    def agree(self, groupings: list[Grouping]) -> list[Uplink]:
        return [loop.send(grouping) for loop, grouping in zip(self.loops, groupings)]

    def go_back(self, downlinks: list[Downlink]) -> None:
        for loop, downlink in zip(self.loops, downlinks):
            assert loop.send(downlink) is None


def gradients(model: torch.nn.Module) -> Tensor:
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    )


def test_a_step_is_adc_on_the_concatenated_batch() -> None:
    """Gradients of the clients, and losses; after a first step of Adam, weights tell of signs alone."""
    clients = Clients()
    models = [copy.deepcopy(side.model) for side in clients.sides]
    uplinks = clients.agree(clients.host.plan(clients.propose()))
    clients.go_back(clients.host.step_jointly(uplinks))

    adc = ADC(ratio=0.3)
    z, s = zip(*(model(batches[0][0]) for model, batches in zip(models, clients.batches)))
    y = torch.cat([batches[0][1] for batches in clients.batches])
    payload = adc.compress(torch.cat(z), y, torch.cat(s), generator=stream(0, 1))
    merged, targets = adc.decompress(payload, shape_of(sum(SIZES)))
    logits = copy.deepcopy(clients.server_model)(merged)
    F.cross_entropy(logits, targets).backward()
    for side, model in zip(clients.sides, models):
        torch.testing.assert_close(gradients(side.model), gradients(model), rtol=1e-4, atol=1e-7)
        assert gradients(model).any()
    for client, cluster in enumerate(payload.integers[0].split(SIZES)):
        own = F.cross_entropy(logits[cluster.unique()], targets[cluster.unique()])
        assert clients.host.mean_loss(client) == pytest.approx(own.item(), rel=1e-5)


def test_losses_of_clusters_that_count_by_size_make_that_of_the_step() -> None:
    clients = Clients(loss_weight="size")
    model = copy.deepcopy(clients.server_model)
    uplinks = clients.agree(clients.host.plan(clients.propose()))
    shares = [clients.host._shares[client] for client in range(len(SIZES))]
    clients.host.step_jointly(uplinks)
    assert clients.stages.exchange is not None
    joined = clients.stages.exchange.cohort.join([uplink.payload for uplink in uplinks], shares, CLASSES)
    logits = model(joined.activations.detach())
    whole = F.cross_entropy(logits, joined.targets).item()
    losses = [clients.host.mean_loss(client) for client in range(len(SIZES))]
    assert sum(n * loss for n, loss in zip(SIZES, losses)) / sum(SIZES) == pytest.approx(whole, rel=1e-5)
    each = F.cross_entropy(logits, joined.targets / joined.targets.sum(1, keepdim=True), reduction="none")
    for share, row, loss in zip(shares, joined.rows, losses):
        assert loss == pytest.approx(each[row[share.told.integers[0]]].mean().item(), rel=1e-5)


def test_one_client_is_as_without() -> None:
    """To the bit: the uplink, the answer, and both sides."""
    together = Clients(sizes=(8,))
    uplinks = together.agree(together.host.plan(together.propose()))
    downlinks = together.host.step_jointly(uplinks)
    together.go_back(downlinks)
    alone = Clients(sizes=(8,))
    alone.stages.exchange = None
    [uplink] = [next(loop) for loop in alone.loops]
    downlink = alone.host.step(uplink)
    alone.loops[0].send(downlink)
    assert torch.equal(uplinks[0].payload.floats[0], uplink.payload.floats[0])
    assert torch.equal(downlinks[0].payload.floats[0], downlink.payload.floats[0])
    assert torch.equal(gradients(together.sides[0].model), gradients(alone.sides[0].model))
    weights = [c.host.shared_state(moments=True) for c in (together, alone)]
    assert torch.equal(weights[0].weights, weights[1].weights) and torch.equal(weights[0].moments, weights[1].moments)
    assert together.host.close(0, moments=False).loss == alone.host.close(0, moments=False).loss


def test_prices_by_hand() -> None:
    """Three clients, T = floor(sqrt(0.3) * 16) = 8, k = floor(sqrt(0.3) * 17) = 9; uplinks of 32-bit numbers."""
    clients = Clients()
    proposals = clients.propose()
    groupings = clients.host.plan(proposals)
    uplinks = clients.agree(groupings)
    prices, total = PriceList(clients.stages), Tally()
    groups = [grouping.shape.groups for grouping in groupings]
    assert groups == [len(grouping.payload.integers[0].unique()) for grouping in groupings]
    for batch, count, uplink in zip(SIZES, groups, uplinks):
        exchange, step = prices.exchange(uplink.shape), prices.step(uplink.shape)
        assert count is not None
        assert exchange.uplink_bits == batch * (17 * 32 + 4)
        assert exchange.downlink_bits == batch * -(-log2(count) // 1) + count * 8 * 4  # 4 bits tell 16 tokens apart
        assert step.uplink_bits == step.downlink_bits == count * 9 * 64 * 32
        assert (exchange.samples, exchange.steps, exchange.nominal_bits, exchange.base_uplink_bits) == (0, 0, 0, 0)
        total += exchange + step
        least, most = prices.bounds(shape_of(batch))
        assert least.uplink_bits <= exchange.uplink_bits + step.uplink_bits <= most.uplink_bits
        assert least.downlink_bits <= exchange.downlink_bits + step.downlink_bits <= most.downlink_bits
    base_up, base_down = 16 * (17 * 64 * 32 + 4), 16 * 17 * 64 * 32
    assert total.nominal_bits == pytest.approx(0.3 * (base_up + base_down), abs=6)  # of the joint batch
    assert (total.base_uplink_bits, total.base_downlink_bits) == (base_up, base_down)
    assert 8 <= sum(groups) <= 16


@pytest.mark.parametrize("behind", [(), ("uniform",), ("fp16",), ("erasure",), ("uniform", "bitflip"), ("awgn",)])
def test_bytes_are_those_of_packed_messages(behind: tuple[str, ...]) -> None:
    clients = Clients(*behind)
    proposals = clients.propose()
    groupings = clients.host.plan(proposals)
    uplinks = clients.agree(groupings)
    downlinks = clients.host.step_jointly(uplinks)
    prices = PriceList(clients.stages)
    for messages in zip(proposals, groupings, uplinks, downlinks):
        shape = messages[1].shape
        assert clients.stages.exchange is not None
        route, exchange = clients.stages.route(shape), clients.stages.exchange.route(shape)
        own = (exchange.up[-1], exchange.down[-1], route.up[-1], route.down[-1])
        packed = [pack(message, layout) for message, layout in zip(messages, own)]
        assert [len(data) for data in packed] == [wire_bytes(layout) for layout in own]
        assert prices.exchange(shape).wire_bytes == len(packed[0]) + len(packed[1])
        assert prices.step(shape).wire_bytes == len(packed[2]) + len(packed[3])
        for message, layout, data in zip(messages, own, packed):
            same(unpack(data, layout=layout, shape=message.shape), message, layout)


def same(found: Message, sent: Message, layout: Layout) -> None:
    assert type(found) is type(sent) and (found.client, found.shape) == (sent.client, sent.shape)
    layout.check(found.payload)
    assert all(torch.equal(a, b) for a, b in zip(found.payload.integers, sent.payload.integers, strict=True))


def test_the_code_of_a_channel_is_paid_for() -> None:
    """At the default rate of 1/2, what is protected costs twice."""
    plain, guarded = (PriceList(stages(*of)) for of in ((), (build_stage("channel", "bitflip", rate=0.1),)))
    shape = shape_of(8, 5)
    assert guarded.exchange(shape).uplink_bits == 2 * plain.exchange(shape).uplink_bits
    assert guarded.exchange(shape).downlink_bits == 2 * plain.exchange(shape).downlink_bits


def test_lost_packets_are_counted_beside() -> None:
    erasure = build_stage("channel", "erasure", loss=0.9, packet_bytes=50, retransmit=True)
    lossy, shape = stages(erasure), shape_of(8, 5)
    assert lossy.exchange is not None
    up, down = lossy.exchange.resent(shape, key=(0, 1, 2))
    assert up > 0 and down > 0 and (up, down) == lossy.exchange.resent(shape, key=(0, 1, 2))
    assert lossy.resent(shape, key=(0, 1, 2)) != (up, down)


def test_who_sends_nothing_is_left_out() -> None:
    clients = Clients()
    groupings = clients.host.plan(clients.propose())
    uplinks = clients.agree(groupings)
    downlinks = clients.host.step_jointly([uplinks[0], uplinks[2]])
    assert [downlink.client for downlink in downlinks] == [0, 2]
    assert [len(d.payload.floats[0]) for d in downlinks] == [groupings[0].shape.groups, groupings[2].shape.groups]
    assert clients.host.close(1, moments=False).loss == 0.0


def test_who_is_spoilt_spoils_nobody_else() -> None:
    clients = Clients()
    uplinks = clients.agree(clients.host.plan(clients.propose()))
    before = clients.host.shared_state(moments=False).weights
    bad = uplinks[1].payload
    uplinks[1] = replace(uplinks[1], payload=replace(bad, floats=(torch.full_like(bad.floats[0], torch.nan),)))
    downlinks = clients.host.step_jointly(uplinks)
    assert all(torch.isfinite(downlink.payload.floats[0]).all() for downlink in downlinks)
    assert not downlinks[1].payload.floats[0].any() and downlinks[0].payload.floats[0].any()
    losses = [clients.host.close(client, moments=False).loss for client in range(3)]
    assert losses[1] != losses[1] and losses[0] > 0 and losses[2] > 0
    after = clients.host.shared_state(moments=False).weights
    assert torch.isfinite(after).all() and not torch.equal(after, before)
