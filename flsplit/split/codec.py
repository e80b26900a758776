"""The plain binary form of messages, whose length is what `wire_bytes` counts. Nothing is ever unpickled.

Wire format, little-endian. Every message: `b"FLS"`, kind (`u8`: 1 uplink, 2 downlink, 3 proposal, 4 grouping), then
- client `u32`, B, N, D, L `u32` each, number of float fields `u8`, number of integer fields `u8`, labels among them;
- per float field: number of dimensions `u8` (plus 128 where values take 16 bits, 64 where they take none and are
  zeros), each dimension `u32`; per integer field: count `u32`, bits `u8` (plus 128 for the labels, which come first);
- the float fields as fp32 or fp16, then the integer fields, each packed at its bits, lowest bit first, padded to a
  byte with zeros.
The header therefore takes `header_bytes(layout)` bytes, and each integer field less than one byte of padding; the rest
is the `actual` price.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from compressors import BatchShape, Integers, Layout, Payload, labels_of
from flsplit.split.messages import Downlink, Grouping, Message, Proposal, Uplink

_FIXED = struct.Struct("<3sB5I2B")
_MAGIC = b"FLS"
_KINDS: dict[int, type[Message]] = {1: Uplink, 2: Downlink, 3: Proposal, 4: Grouping}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_FLAG = 128  # of the labels
_FLAGS = {32: 0, 16: 128, 0: 64}  # of a field of floats, by the bits of its values
_BITS = {flag: bits for bits, flag in _FLAGS.items()}
_DTYPES = {32: "<f4", 16: "<f2"}
_MOST_DIMENSIONS = 32
_MOST_VALUES = 1 << 60  # of a tensor, and where one dimension is 0, of the others: PyTorch multiplies them
_MOST_BITS = 63  # of an integer
_AT_ONCE = 1 << 17  # bits that are taken apart at a time


def header_bytes(layout: Layout) -> int:
    """Length of a packed message's header, in bytes."""
    return _FIXED.size + sum(1 + 4 * len(field.shape) for field in layout.floats) + 5 * len(_integers(layout))


def wire_bytes(layout: Layout) -> int:
    """Bytes of a packed message, from shapes alone."""
    floats = sum(field.size // 8 for field in layout.floats)
    return header_bytes(layout) + floats + sum(math.ceil(field.size / 8) for field in _integers(layout))


def pack(message: Message, layout: Layout) -> bytes:
    """Serialise a message.

    Args:
        message: to be sent.
        layout: of its payload: how many bits each value takes.

    Raises:
        ValueError: if the payload is not of this layout, an integer is out of its range, or a number of the header
            does not fit its place.
    """
    layout.check(message.payload)
    try:
        return _packed(message, layout)
    except struct.error as error:
        raise ValueError(f"a number does not fit the header of a message ({error})") from error


def _packed(message: Message, layout: Layout) -> bytes:
    shape, floats = message.shape, message.payload.floats
    fields = _integers(layout)
    labels = () if message.payload.labels is None else (message.payload.labels,)
    integers = (*labels, *message.payload.integers)
    parts = [
        _FIXED.pack(
            _MAGIC, _NUMBERS[type(message)], message.client, shape.batch, shape.tokens, shape.width, shape.classes,
            len(floats), len(fields),
        )
    ]  # fmt: skip
    for of_floats, t in zip(layout.floats, floats, strict=True):
        if t.ndim > _MOST_DIMENSIONS:
            raise ValueError(f"a field of floats has at most {_MOST_DIMENSIONS} dimensions, got {t.ndim}")
        parts.append(struct.pack(f"<B{t.ndim}I", t.ndim + _FLAGS[of_floats.bits], *t.shape))
    for field in fields:
        parts.append(struct.pack("<IB", math.prod(field.shape), field.bits + (_FLAG if field is layout.labels else 0)))
    for of_floats, t in zip(layout.floats, floats, strict=True):
        if of_floats.bits == 0:
            continue
        array = t.detach().float().cpu().contiguous().numpy()
        parts.append(array.astype(_DTYPES[of_floats.bits], copy=False).tobytes())
    parts += [_pack_integers(t, field) for t, field in zip(integers, fields, strict=True)]
    return b"".join(parts)


def unpack(data: bytes, *, layout: Layout | None = None, shape: BatchShape | None = None) -> Message:
    """The inverse of `pack`, for bytes from anywhere; floats come back as fp32.

    It takes at most 65 times the length of `data`, plus 4 MiB (the worst are integers of one bit: 8 bytes each).

    Args:
        data: one message.
        layout: what the receiver expects of the payload, fields of integers get its shapes; None: whatever the
            message says of itself, and fields of integers are flat.
        shape: of the batch that the receiver expects; None: whatever the message says. Its groups are in no header:
            who expects them knows the grouping.

    Raises:
        ValueError: and nothing else, if `data` is not one whole message or not the expected one: other fields, shapes
            or bits, integers out of their range, labels that are not one of L for each of B samples.
    """
    header, at = _read_header(memoryview(data))
    if shape is not None and header.shape != replace(shape, groups=None):
        raise ValueError(f"the message is of a batch of {header.shape}, expected {shape}")
    if layout is not None:
        _hold_to(header, layout)
    if at + sum(field.nbytes for field in (*header.floats, *header.integers)) != len(data):
        raise ValueError("not a whole flsplit message: its length is not what its header says")
    floats = []
    for field in header.floats:
        if field.bits == 0:  # however many it speaks of, they take one number
            floats.append(torch.zeros(()).expand(field.shape))
            continue
        values = np.frombuffer(data, _DTYPES[field.bits], field.count, at).astype("<f4").reshape(field.shape)
        floats.append(torch.from_numpy(values))
        at += field.nbytes
    integers = []
    for field in header.integers:
        integers.append(_unpack_integers(memoryview(data)[at : at + field.nbytes], field.count, field.bits))
        at += field.nbytes
    labels = integers.pop(0) if header.labelled else None
    if labels is not None:
        _check_range(labels, labels_of(header.shape))
    if layout is not None:
        for t, expected in zip(integers, layout.integers, strict=True):
            _check_range(t, expected)
        integers = [t.reshape(field.shape) for t, field in zip(integers, layout.integers)]
    payload = Payload(tuple(floats), tuple(integers), labels)
    return _KINDS[header.kind](client=header.client, shape=shape or header.shape, payload=payload)


@dataclass(frozen=True)
class _Field:
    """A field as a message announces it."""

    shape: tuple[int, ...]
    bits: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return -(-self.count * self.bits // 8)


@dataclass(frozen=True)
class _Header:
    """What stands before the values; `labelled`: the first field of integers holds the labels."""

    kind: int
    client: int
    shape: BatchShape
    floats: tuple[_Field, ...]
    integers: tuple[_Field, ...]
    labelled: bool


def _read_header(data: memoryview) -> tuple[_Header, int]:
    """A message's header and its length. Nothing is made yet of the size that it speaks of.

    Raises:
        ValueError: if there is no whole header, or it says what cannot be.
    """
    try:
        magic, kind, client, batch, tokens, width, classes, n_floats, n_integers = _FIXED.unpack_from(data)
        at = _FIXED.size
        floats, integers, labelled = [], [], False
        for _ in range(n_floats):
            dimensions, flags = data[at] & 63, data[at] & 192
            if flags not in _BITS:
                raise ValueError("not a flsplit message: a field of floats takes 32 bits, 16 or none")
            floats.append(_Field(struct.unpack_from(f"<{dimensions}I", data, at + 1), _BITS[flags]))
            at += 1 + 4 * dimensions
        for number in range(n_integers):
            count, flagged = struct.unpack_from("<IB", data, at)
            if flagged >= _FLAG and number > 0:
                raise ValueError("not a flsplit message: labels must come first")
            labelled = labelled or flagged >= _FLAG
            integers.append(_Field((count,), flagged % _FLAG))
            at += 5
    except (struct.error, IndexError) as error:
        raise ValueError("not a whole flsplit message") from error
    if magic != _MAGIC or kind not in _KINDS:
        raise ValueError("not a flsplit message")
    if not (batch and tokens and width and classes):
        raise ValueError("not a flsplit message: a batch has samples, tokens, a width and classes")
    for field in floats:
        if len(field.shape) > _MOST_DIMENSIONS or math.prod(max(1, size) for size in field.shape) >= _MOST_VALUES:
            raise ValueError("not a flsplit message: a field of floats of a shape that no tensor has")
    if any(field.bits > _MOST_BITS for field in integers):
        raise ValueError(f"not a flsplit message: integers have at most {_MOST_BITS} bits")
    if labelled and integers[0].count != batch:
        raise ValueError(f"not a flsplit message: {integers[0].count} labels for {batch} samples")
    shape = BatchShape(batch=batch, tokens=tokens, width=width, classes=classes)
    return _Header(kind, client, shape, tuple(floats), tuple(integers), labelled), at


def _hold_to(header: _Header, layout: Layout) -> None:
    """Refuse a message whose fields are not those that the receiver expects."""
    fields = _integers(layout)
    for kind, found, expected in (
        ("floats", [(field.shape, field.bits) for field in header.floats], [(f.shape, f.bits) for f in layout.floats]),
        ("integers", [(f.count, f.bits) for f in header.integers], [(math.prod(f.shape), f.bits) for f in fields]),
        ("labels", header.labelled, layout.labels is not None),
    ):
        if found != expected:
            raise ValueError(f"the message has other {kind} than expected: {found!s:.80}, not {expected!s:.80}")


def _check_range(values: Tensor, field: Integers) -> None:
    """Refuse integers that `field` does not have; none of the values is below 0."""
    if field.below is not None and field.bits and values.numel() and int(values.max()) >= field.below:
        raise ValueError(f"an integer is {int(values.max())}, and must be below {field.below}")


def _integers(layout: Layout) -> tuple[Integers, ...]:
    """All fields of integers as they are packed: the labels first."""
    return layout.integers if layout.labels is None else (layout.labels, *layout.integers)


def _pack_integers(values: Tensor, field: Integers) -> bytes:
    flat, bits = values.detach().cpu().reshape(-1).numpy(), field.bits
    if flat.size and (flat.min() < 0 or flat.max() >= 1 << bits):
        raise ValueError(f"an integer does not fit in {bits} bits")
    _check_range(values, field)
    rows = (flat[:, None] >> np.arange(bits)) & 1  # (count, bits)
    return np.packbits(rows.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def _unpack_integers(data: memoryview, count: int, bits: int) -> Tensor:
    """`count` integers, (count,) int64, from exactly their bytes."""
    if bits == 0:  # whatever count the message speaks of, it takes one number
        return torch.zeros(1, dtype=torch.int64).expand(count)
    if data.nbytes and data[-1] >> ((count * bits - 1) % 8 + 1):
        raise ValueError("not a whole flsplit message: bits are set behind a field's last integer")
    weights = 1 << np.arange(bits, dtype=np.int64)
    values = np.empty(count, np.int64)
    piece = max(1, _AT_ONCE // (8 * bits)) * 8  # a multiple of 8: it ends where a byte ends
    for start in range(0, count, piece):
        some = min(piece, count - start)
        packed = np.frombuffer(data, np.uint8, math.ceil(some * bits / 8), start * bits // 8)
        rows = np.unpackbits(packed, count=some * bits, bitorder="little").reshape(some, bits)
        values[start : start + some] = rows.astype(np.int64) @ weights
    return torch.from_numpy(values)
