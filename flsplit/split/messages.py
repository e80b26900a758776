"""What crosses between a client and the server in one step, and its exact form on a wire.

An `Uplink` holds detached tensors, a `Downlink` the gradients with respect to them: no autograd graph and no
image ever crosses. While simulating, messages pass by reference; `pack` and `unpack` are the plain binary form
whose length is what `wire_bytes` counts. Nothing is ever unpickled.

Wire format, little-endian. Every message: `b"FLS"`, kind (`u8`: 1 up, 2 down), then
- client `u32`, B, N, D, L `u32` each, number of float fields `u8`, number of integer fields `u8`;
- per float field: number of dimensions `u8`, each dimension `u32`; per integer field: count `u32`, bits `u8`;
- the float fields as fp32, then the integer fields, each packed at its bits, lowest bit first, padded to a byte.
A `Downlink` has no integer fields. The header therefore takes `header_bytes(layout)` bytes, and each integer
field less than one byte of padding; the rest is the `actual` price.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressors import BatchShape, Layout, Payload

_FIXED = struct.Struct("<3sB5I2B")
_MAGIC = b"FLS"
_UP, _DOWN = 1, 2


@dataclass(frozen=True, kw_only=True)
class Uplink:
    """One batch on its way up: compressed smashed activations and what goes with them (labels, indices).

    Raises:
        ValueError: if a tensor still carries an autograd graph.
    """

    client: int
    shape: BatchShape
    payload: Payload

    def __post_init__(self) -> None:
        _refuse_graphs(self.payload.floats)


@dataclass(frozen=True, kw_only=True)
class Downlink:
    """The gradients of the loss with respect to the floats of an `Uplink`, in their order and shapes."""

    client: int
    shape: BatchShape
    gradients: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        _refuse_graphs(self.gradients)


def _refuse_graphs(tensors: tuple[Tensor, ...]) -> None:
    if any(t.requires_grad or t.grad_fn is not None for t in tensors):
        raise ValueError("a tensor that crosses the link must be detached from its autograd graph")


def header_bytes(layout: Layout, *, down: bool = False) -> int:
    """Length of a packed message's header, in bytes."""
    floats = sum(1 + 4 * len(shape) for shape in layout.floats)
    return _FIXED.size + floats + (0 if down else 5 * len(layout.integers))


def wire_bytes(layout: Layout) -> int:
    """Bytes of the packed uplink and downlink of one step together, from shapes alone."""
    floats = 4 * sum(math.prod(shape) for shape in layout.floats)
    integers = sum(math.ceil(count * bits / 8) for count, bits in layout.integers)
    return header_bytes(layout) + floats + integers + header_bytes(layout, down=True) + floats


def pack(message: Uplink | Downlink, layout: Layout) -> bytes:
    """Serialise a message; `layout` tells how many bits each integer takes.

    Raises:
        ValueError: if an integer does not fit its bits.
    """
    up = isinstance(message, Uplink)
    floats = message.payload.floats if isinstance(message, Uplink) else message.gradients
    integers = message.payload.integers if isinstance(message, Uplink) else ()
    bits = [bits for _, bits in layout.integers] if up else []
    s = message.shape
    parts = [
        _FIXED.pack(
            _MAGIC, _UP if up else _DOWN, message.client, s.batch, s.tokens, s.width, s.classes,
            len(floats), len(integers),
        )
    ]  # fmt: skip
    parts += [struct.pack(f"<B{t.ndim}I", t.ndim, *t.shape) for t in floats]
    parts += [struct.pack("<IB", t.numel(), b) for t, b in zip(integers, bits, strict=True)]
    parts += [t.detach().float().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes() for t in floats]
    parts += [_pack_integers(t, b) for t, b in zip(integers, bits, strict=True)]
    return b"".join(parts)


def unpack(data: bytes) -> Uplink | Downlink:
    """The inverse of `pack`; integer fields come back flat.

    Raises:
        ValueError: if `data` is not one whole message.
    """
    try:
        magic, kind, client, batch, tokens, width, classes, n_floats, n_integers = _FIXED.unpack_from(data)
        if magic != _MAGIC or kind not in (_UP, _DOWN):
            raise ValueError("not a flsplit message")
        at = _FIXED.size
        shapes, fields = [], []
        for _ in range(n_floats):
            ndim = data[at]
            shapes.append(struct.unpack_from(f"<{ndim}I", data, at + 1))
            at += 1 + 4 * ndim
        for _ in range(n_integers):
            fields.append(struct.unpack_from("<IB", data, at))
            at += 5
        floats = []
        for shape in shapes:
            values = np.frombuffer(data, "<f4", math.prod(shape), at)
            floats.append(torch.from_numpy(values.astype(np.float32)).reshape(shape))
            at += values.nbytes
        integers = []
        for count, bits in fields:
            size = math.ceil(count * bits / 8)
            integers.append(_unpack_integers(data[at : at + size], count, bits))
            at += size
    except (struct.error, IndexError) as error:
        raise ValueError("not a whole flsplit message") from error
    if at != len(data):
        raise ValueError("not a whole flsplit message")
    batch_shape = BatchShape(batch=batch, tokens=tokens, width=width, classes=classes)
    if kind == _DOWN:
        return Downlink(client=client, shape=batch_shape, gradients=tuple(floats))
    return Uplink(client=client, shape=batch_shape, payload=Payload(tuple(floats), tuple(integers)))


def _pack_integers(values: Tensor, bits: int) -> bytes:
    flat = values.detach().cpu().reshape(-1).numpy()
    if flat.size and (flat.min() < 0 or flat.max() >= 1 << bits):
        raise ValueError(f"an integer does not fit in {bits} bits")
    rows = (flat[:, None] >> np.arange(bits)) & 1  # (count, bits)
    return np.packbits(rows.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def _unpack_integers(data: bytes, count: int, bits: int) -> Tensor:
    if len(data) != math.ceil(count * bits / 8):
        raise ValueError("not a whole flsplit message")
    rows = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little")
    return torch.from_numpy(rows.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64)))
