"""The wire: what is packed comes back, and is exactly as long as the ledger says."""

from __future__ import annotations

import pytest
import torch

from compressors import BatchShape, Compressor, Floats, Layout, Payload, build, hard_labels
from flsplit.ledger.prices import PriceList
from flsplit.split.codec import header_bytes, pack, unpack, wire_bytes
from flsplit.split.messages import Downlink, Uplink
from flsplit.split.stages import Stages

METHODS = {
    "base": {},
    "adc": {"ratio": 0.3},
    "topk": {"rate": 0.2},
    "randtopk": {"rate": 0.1, "index_bits": "per_batch"},
    "c3sl": {"group": 4},
    "bottlenet": {"ratio": 0.3},
}
SHAPES = [
    BatchShape(batch=8, tokens=17, width=6, classes=10),
    BatchShape(batch=16, tokens=5, width=12, classes=100),
    BatchShape(batch=3, tokens=9, width=4, classes=2),
    BatchShape(batch=1, tokens=2, width=3, classes=1),
    BatchShape(batch=12, tokens=50, width=24, classes=101),
]


def bound(name: str, shape: BatchShape) -> Compressor:
    generator = torch.Generator().manual_seed(1)
    return build(name, **METHODS[name]).bind(tokens=shape.tokens, width=shape.width, generator=generator)


def an_uplink(compressor: Compressor, shape: BatchShape) -> Uplink:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(shape.batch, shape.tokens, shape.width, generator=generator)
    y = torch.randint(shape.classes, (shape.batch,), generator=generator)
    s = torch.rand(shape.batch, shape.tokens, generator=generator).softmax(1)
    with torch.no_grad():
        payload = compressor.compress(z, y, s, generator=generator)
    return Uplink(client=7, shape=shape, payload=payload)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.batch}x{s.tokens}x{s.width}x{s.classes}")
@pytest.mark.parametrize("name", METHODS)
def test_packed_messages_are_as_long_as_the_ledger_says(name: str, shape: BatchShape) -> None:
    compressor = bound(name, shape)
    layout, uplink = compressor.layout(shape), an_uplink(compressor, shape)
    downlink = Downlink(
        client=7, shape=shape, payload=Payload(tuple(torch.ones_like(f) for f in uplink.payload.floats))
    )
    back = layout.gradients()
    up, down = pack(uplink, layout), pack(downlink, back)
    assert (len(up), len(down)) == (wire_bytes(layout), wire_bytes(back))
    price = PriceList(Stages(compressor)).step(shape)
    assert price.wire_bytes == len(up) + len(down)
    assert (price.uplink_bits, price.downlink_bits) == (layout.uplink_bits, layout.downlink_bits)
    padding = 8 * (len(up) - header_bytes(layout)) - price.uplink_bits
    assert 0 <= padding < 8 * (1 + len(layout.integers))
    assert 8 * (len(down) - header_bytes(back)) == price.downlink_bits


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.batch}x{s.tokens}x{s.width}x{s.classes}")
@pytest.mark.parametrize("name", METHODS)
def test_the_server_decompresses_the_packed_message_to_the_same_bits(name: str, shape: BatchShape) -> None:
    compressor = bound(name, shape)
    uplink = an_uplink(compressor, shape)
    received = unpack(pack(uplink, compressor.layout(shape)))
    assert isinstance(received, Uplink)
    assert (received.client, received.shape) == (7, shape)
    for sent, got in zip(uplink.payload.floats, received.payload.floats, strict=True):
        assert torch.equal(sent, got)
    for sent, got in zip(uplink.payload.integers, received.payload.integers, strict=True):
        assert torch.equal(sent.flatten(), got)
    assert torch.equal(hard_labels(uplink.payload), hard_labels(received.payload))
    expected, found = compressor.decompress(uplink.payload, shape), compressor.decompress(received.payload, shape)
    assert all(torch.equal(a, b) for a, b in zip(expected, found))


def test_a_downlink_comes_back() -> None:
    shape = SHAPES[0]
    gradients = (torch.randn(2, 3), torch.randn(4))
    layout = Layout((Floats((2, 3)), Floats((4,))))
    received = unpack(pack(Downlink(client=1, shape=shape, payload=Payload(gradients)), layout))
    assert isinstance(received, Downlink)
    assert all(torch.equal(a, b) for a, b in zip(gradients, received.payload.floats))


def test_no_graph_can_cross() -> None:
    z = torch.randn(2, 3, 4, requires_grad=True)
    shape = BatchShape(batch=2, tokens=3, width=4, classes=5)
    labels = torch.zeros(2, dtype=torch.int64)
    for leaking in (z, z * 2):
        with pytest.raises(ValueError, match="detached"):
            Uplink(client=0, shape=shape, payload=Payload((leaking,), labels=labels))
        with pytest.raises(ValueError, match="detached"):
            Downlink(client=0, shape=shape, payload=Payload((leaking,)))


def test_an_integer_that_does_not_fit_is_refused() -> None:
    shape = BatchShape(batch=2, tokens=1, width=1, classes=4)
    payload = Payload((torch.zeros(2, 1, 1),), labels=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="2 bits"):
        pack(Uplink(client=0, shape=shape, payload=payload), build("base").layout(shape))


def test_what_is_no_message_is_refused() -> None:
    shape = SHAPES[0]
    compressor = bound("topk", shape)
    data = pack(an_uplink(compressor, shape), compressor.layout(shape))
    for broken in (b"", data[:10], data[:-1], data + b"x", b"XXX" + data[3:], data[:3] + b"\x09" + data[4:]):
        with pytest.raises(ValueError, match="flsplit message"):
            unpack(broken)
