"""The plain binary form of messages, whose length is what `wire_bytes` counts. Nothing is ever unpickled.

Wire format, little-endian. Every message: `b"FLS"`, kind (`u8`: 1 up, 2 down), then
- client `u32`, B, N, D, L `u32` each, number of float fields `u8`, number of integer fields `u8`, labels among them;
- per float field: number of dimensions `u8` (plus 128 where values take 16 bits), each dimension `u32`; per integer
  field: count `u32`, bits `u8` (plus 128 for the labels, which come first);
- the float fields as fp32 or fp16, then the integer fields, each packed at its bits, lowest bit first, padded to a
  byte.
The header therefore takes `header_bytes(layout)` bytes, and each integer field less than one byte of padding; the rest
is the `actual` price.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import torch
from torch import Tensor

from compressors import BatchShape, Integers, Layout, Payload
from flsplit.split.messages import Downlink, Uplink

_FIXED = struct.Struct("<3sB5I2B")
_MAGIC = b"FLS"
_UP, _DOWN = 1, 2
_FLAG = 128  # of a half-precision field, and of the labels
_DTYPES = {32: "<f4", 16: "<f2"}


def header_bytes(layout: Layout) -> int:
    """Length of a packed message's header, in bytes."""
    return _FIXED.size + sum(1 + 4 * len(field.shape) for field in layout.floats) + 5 * len(_integers(layout))


def wire_bytes(layout: Layout) -> int:
    """Bytes of a packed message, from shapes alone."""
    floats = sum(field.size // 8 for field in layout.floats)
    return header_bytes(layout) + floats + sum(math.ceil(field.size / 8) for field in _integers(layout))


def pack(message: Uplink | Downlink, layout: Layout) -> bytes:
    """Serialise a message.

    Args:
        message: to be sent.
        layout: of its payload: how many bits each value takes.

    Raises:
        ValueError: if the payload is not of this layout, or an integer does not fit its bits.
    """
    layout.check(message.payload)
    shape, floats = message.shape, message.payload.floats
    fields = _integers(layout)
    labels = () if message.payload.labels is None else (message.payload.labels,)
    integers = (*labels, *message.payload.integers)
    kind = _UP if isinstance(message, Uplink) else _DOWN
    parts = [
        _FIXED.pack(
            _MAGIC, kind, message.client, shape.batch, shape.tokens, shape.width, shape.classes, len(floats),
            len(fields),
        )
    ]  # fmt: skip
    for of_floats, t in zip(layout.floats, floats, strict=True):
        parts.append(struct.pack(f"<B{t.ndim}I", t.ndim + (_FLAG if of_floats.bits == 16 else 0), *t.shape))
    for field in fields:
        parts.append(struct.pack("<IB", math.prod(field.shape), field.bits + (_FLAG if field is layout.labels else 0)))
    for of_floats, t in zip(layout.floats, floats, strict=True):
        array = t.detach().float().cpu().contiguous().numpy()
        parts.append(array.astype(_DTYPES[of_floats.bits], copy=False).tobytes())
    parts += [_pack_integers(t, field.bits) for t, field in zip(integers, fields, strict=True)]
    return b"".join(parts)


def unpack(data: bytes) -> Uplink | Downlink:
    """The inverse of `pack`; integer fields come back flat, floats as fp32.

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
            ndim, bits = data[at] % _FLAG, 16 if data[at] >= _FLAG else 32
            shapes.append((struct.unpack_from(f"<{ndim}I", data, at + 1), bits))
            at += 1 + 4 * ndim
        for _ in range(n_integers):
            fields.append(struct.unpack_from("<IB", data, at))
            at += 5
        floats = []
        for dimensions, bits in shapes:
            values = np.frombuffer(data, _DTYPES[bits], math.prod(dimensions), at).astype("<f4").reshape(dimensions)
            floats.append(torch.from_numpy(values))
            at += values.size * bits // 8
        integers, labels = [], None
        for count, flagged in fields:
            bits = flagged % _FLAG
            size = math.ceil(count * bits / 8)
            whole = _unpack_integers(data[at : at + size], count, bits)
            if flagged >= _FLAG:
                labels = whole
            else:
                integers.append(whole)
            at += size
    except (struct.error, IndexError) as error:
        raise ValueError("not a whole flsplit message") from error
    if at != len(data):
        raise ValueError("not a whole flsplit message")
    message = Uplink if kind == _UP else Downlink
    shape = BatchShape(batch=batch, tokens=tokens, width=width, classes=classes)
    return message(client=client, shape=shape, payload=Payload(tuple(floats), tuple(integers), labels))


def _integers(layout: Layout) -> tuple[Integers, ...]:
    """All fields of integers as they are packed: the labels first."""
    return layout.integers if layout.labels is None else (layout.labels, *layout.integers)


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
