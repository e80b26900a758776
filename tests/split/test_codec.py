"""Bytes from anywhere: `unpack` gives a message or raises a `ValueError`, and takes no more than it says."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from compressors import BatchShape, Floats, Integers, Layout, Payload, labels_of
from flsplit.split.codec import pack, unpack
from flsplit.split.messages import Downlink, Uplink

SHAPE = BatchShape(batch=6, tokens=5, width=4, classes=10)
LAYOUTS = {
    "base": Layout((Floats((6, 5, 4)),), labels=labels_of(SHAPE)),
    "indices": Layout((Floats((6, 3)),), (Integers((6, 3), 5, below=20),), labels_of(SHAPE)),
    "halves": Layout((Floats((6, 2), bits=16), Floats((1,))), (Integers((6, 20), 8),), labels_of(SHAPE)),
    "single bits": Layout((), (Integers((6, 20), 1),)),
    "wide": Layout((), (Integers((3,), 63), Integers((9,), 0))),
    "down": Layout((Floats((6, 5, 4)),)),
    "empty": Layout(()),
}
HEADER = struct.Struct("<3sB5I2B")


@cache
def message(name: str) -> bytes:
    layout, generator = LAYOUTS[name], torch.Generator().manual_seed(3)

    def integers(field: Integers) -> torch.Tensor:
        return torch.randint(field.below or min(1 << field.bits, 2**63 - 1), field.shape, generator=generator)

    payload = Payload(
        tuple(torch.randn(field.shape, generator=generator).half().float() for field in layout.floats),
        tuple(integers(field) for field in layout.integers),
        None if layout.labels is None else integers(layout.labels),
    )
    return pack((Downlink if name == "down" else Uplink)(client=7, shape=SHAPE, payload=payload), layout)


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: rng.integers(len(data) + 1)])


def flip(data: bytearray, rng: np.random.Generator) -> bytes:
    for bit in rng.integers(8 * len(data), size=rng.integers(1, 4)):
        data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def enlarge(data: bytearray, rng: np.random.Generator) -> bytes:
    """Some number of the header becomes a huge one."""
    at = rng.integers(4, max(5, min(len(data) - 4, 60)))
    data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x00\x00\x00\x40", b"\x00\x00\x00\x00"])
    return bytes(data)


def announce(data: bytearray, rng: np.random.Generator) -> bytes:
    """A well-formed beginning with fields of any size."""
    floats, integers = rng.integers(0, 4, size=2)
    kind, shape = rng.integers(1, 3), rng.integers(0, 1 << rng.integers(1, 33), size=4)
    fields = b""
    for dimensions in rng.integers(0, 128, size=floats):
        sizes = rng.integers(0, 1 << rng.integers(1, 33), dimensions, np.uint32)
        fields += bytes([dimensions | rng.choice([0, 128])]) + sizes.tobytes()
    counts = b"".join(
        struct.pack("<IB", rng.integers(1 << rng.integers(1, 33)), rng.integers(256)) for _ in range(integers)
    )
    return HEADER.pack(b"FLS", kind, 7, *shape, floats, integers) + fields + counts + bytes(data)


def splice(data: bytearray, rng: np.random.Generator) -> bytes:
    other = message(rng.choice(list(LAYOUTS)))
    at = rng.integers(len(data))
    return bytes(data[:at]) + other[rng.integers(len(other)) :]


def noise(data: bytearray, rng: np.random.Generator) -> bytes:
    some = rng.bytes(rng.integers(200))
    return b"FLS\x01" + some if rng.random() < 0.5 else some


MUTATIONS: list[Callable[[bytearray, np.random.Generator], bytes]] = [cut, flip, enlarge, announce, splice, noise]


@pytest.mark.parametrize("messages", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_whatever_the_bytes_it_is_a_message_or_a_value_error(messages: int) -> None:
    """What is taken for a message packs to the same bytes again: nothing of it was guessed."""
    rng = np.random.default_rng(messages)
    names, taken = list(LAYOUTS), 0
    for number in range(messages):
        name = names[number % len(names)]
        data = MUTATIONS[rng.integers(len(MUTATIONS))](bytearray(message(name)), rng)
        try:
            found = unpack(data)
            taken += 1
        except ValueError:
            continue
        try:
            expected = unpack(data, layout=LAYOUTS[name], shape=SHAPE)
        except ValueError:
            continue
        if not any(t.isnan().any() for t in expected.payload.floats):  # whose bits a processor may change
            assert pack(expected, LAYOUTS[name]) == data
        assert found.client == expected.client
    assert messages / 100 < taken < messages / 2


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_receiver_gets_what_it_expects(name: str) -> None:
    layout = LAYOUTS[name]
    found = unpack(message(name), layout=layout, shape=SHAPE)
    layout.check(found.payload)
    assert pack(found, layout) == message(name)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_receiver_refuses_the_message_of_another(name: str) -> None:
    for other in LAYOUTS:
        if other != name and LAYOUTS[other] != LAYOUTS[name]:
            with pytest.raises(ValueError, match=r"other (floats|integers|labels) than expected"):
                unpack(message(other), layout=LAYOUTS[name])
    with pytest.raises(ValueError, match="expected BatchShape"):
        unpack(message(name), shape=BatchShape(batch=6, tokens=4, width=5, classes=10))


def replaced(name: str, at: int, value: bytes) -> bytes:
    data = bytearray(message(name))
    data[at : at + len(value)] = value
    return bytes(data)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def huge(
    floats: bytes = b"", integers: bytes = b"", n: tuple[int, int] = (1, 0), shape: tuple[int, ...] = (6, 5, 4, 10)
) -> bytes:
    return HEADER.pack(b"FLS", 1, 7, *shape, *n) + floats + integers


FAULTS = {
    "no samples": (replaced("down", 8, u32(0)), "a batch has samples"),
    "no classes": (replaced("base", 20, u32(0)), "classes"),
    "labels of fewer samples": (replaced("base", 8, u32(7)), "6 labels for 7 samples"),
    "labels of fewer classes": (replaced("base", 20, u32(2)), "must be below 2"),
    "labels that come second": (replaced("wide", 26 + 5 + 4, bytes([128])), "labels must come first"),
    "integers of 64 bits": (replaced("wide", 26 + 4, bytes([64])), "at most 63 bits"),
    "33 dimensions": (huge(bytes([33]) + u32(1) * 33 + bytes(4)), "no tensor has"),
    "no values in huge dimensions": (huge(bytes([3]) + u32(0) + u32(2**32 - 1) * 2), "no tensor has"),
    "a huge tensor": (huge(bytes([2]) + u32(2**20) * 2), "its length"),
    "many integers": (huge(b"", struct.pack("<IB", 2**32 - 1, 63), (0, 1)), "its length"),
    "bits behind the last integer": (replaced("wide", len(message("wide")) - 1, bytes([255])), "are set behind"),
    "more fields than there are": (huge(n=(255, 255)), "not a whole"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_is_refused(fault: str) -> None:
    data, said = FAULTS[fault]
    with pytest.raises(ValueError, match=said):
        unpack(data)


def test_integers_are_held_to_their_range() -> None:
    data = bytearray(message("indices"))
    data[-12:] = b"\xff" * 11 + bytes([0b11])  # 18 of 5 bits are 90: all are 31
    assert int(unpack(bytes(data)).payload.integers[0].max()) == 31
    with pytest.raises(ValueError, match="is 31, and must be below 20"):
        unpack(bytes(data), layout=LAYOUTS["indices"])


def test_what_does_not_fit_the_header_is_not_packed() -> None:
    payload = Payload((torch.zeros(1),))
    with pytest.raises(ValueError, match="does not fit the header"):
        pack(Downlink(client=2**32, shape=SHAPE, payload=payload), Layout((Floats((1,)),)))
    many = Payload((torch.zeros(1),) * 256)
    with pytest.raises(ValueError, match="does not fit the header"):
        pack(Downlink(client=0, shape=SHAPE, payload=many), Layout((Floats((1,)),) * 256))


@pytest.mark.parametrize(
    "data",
    [
        huge(b"", struct.pack("<IB", 2**32 - 1, 0), (0, 1)),
        huge(b"", struct.pack("<IB", 0, 0) * 255, (0, 255)),
        huge(bytes([1]) + u32(2**18), n=(1, 0)) + bytes(2**20),
        huge(bytes([1 + 128]) + u32(2**18), n=(1, 0)) + bytes(2**19),
        *(huge(b"", struct.pack("<IB", 2**23 // bits, bits), (0, 1)) + bytes(-(2**23 // bits * bits) // -8)
          for bits in (1, 2, 7, 8, 63)),
        huge(b"", struct.pack("<IB", 2**23, 1), (0, 1)) + bytes(2**20 - 1),
        huge(bytes([32]) + u32(1) * 32, n=(255, 0)) + bytes(10),
    ],
    ids=["none of none", "empty fields", "floats", "halves", "1", "2", "7", "8", "63", "too short", "header"],
)  # fmt: skip
def test_no_message_takes_more_memory_than_is_said(data: bytes) -> None:
    tracemalloc.start()
    try:
        unpack(data)
    except ValueError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak <= 65 * len(data) + 2**22
