"""What every compressor is: two halves that meet in a payload, and the exact price of that payload.

Legend of shapes: B samples, N tokens (prefix tokens included), D embedding width, L labels, T targets.
The paper's D (features per sample) is N * D here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from compressors.cohort import Cohort
    from compressors.lost import Lost

FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """Shape of one batch of smashed activations.

    Attributes:
        batch: B, samples.
        tokens: N, tokens per sample, prefix tokens included.
        width: D, numbers per token.
        classes: L, labels of the data set.
        groups: G, in which it is sent where it is compressed together with others, as its `Share` says; None alone.
    """

    batch: int
    tokens: int
    width: int
    classes: int
    groups: int | None = None


@dataclass(frozen=True)
class Floats:
    """A field of floating-point numbers, known from shapes alone.

    Attributes:
        shape: of the tensor.
        bits: of each value on its way: 32, 16, which rounds it to half precision where it crosses, or 0: zeros, which
            are not sent. They hold a place for a gradient that comes back.
        back: of each value's gradient on its way back: 32, 16, or 0 where none comes (a range, a scale).
        protected: whether a channel leaves the values alone: what others cannot be read without (a range, a scale).
    """

    shape: tuple[int, ...]
    bits: int = FLOAT_BITS
    back: int = FLOAT_BITS
    protected: bool = False

    def __post_init__(self) -> None:
        if not (type(self.bits) is type(self.back) is int and {self.bits, self.back} <= {0, 16, 32}):
            raise ValueError(f"floats have 32, 16 or 0 bits each way; integers have any number: got {self}")

    @property
    def size(self) -> int:
        """Bits of the whole field on its way."""
        return prod(self.shape) * self.bits


@dataclass(frozen=True)
class Integers:
    """A field of whole numbers from 0, known from shapes alone; no gradient comes back for them.

    Attributes:
        shape: of the tensor.
        bits: of each value, 0 to 63; every value is below 2^bits.
        below: what every value is below where that is less than 2^bits; None where all values of these bits can be.
        protected: whether a channel leaves the values alone (indices, labels); not so the codes of a quantiser.
    """

    shape: tuple[int, ...]
    bits: int
    below: int | None = None
    protected: bool = True

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 0 <= self.bits <= 63:
            raise ValueError(f"integers have 0 to 63 bits, a whole number, got {self}")

    @property
    def limit(self) -> int:
        """What every value is below."""
        return 1 << self.bits if self.below is None else min(self.below, 1 << self.bits)

    @classmethod
    def one_of(cls, n: int, shape: tuple[int, ...]) -> Self:
        """A field that tells `n` values apart, 0 to n - 1, at ceil(log2 n) bits each."""
        return cls(shape, bits_for(n), n)

    @property
    def size(self) -> int:
        """Bits of the whole field on its way."""
        return prod(self.shape) * self.bits


@dataclass(frozen=True, eq=False)
class Payload:
    """What crosses from one side to the other in one step.

    Attributes:
        floats: fp32 tensors, perhaps with an autograd graph behind them.
        integers: int64 tensors.
        labels: the batch's labels (B,), int64, which are no part of what is compressed; None where they stay behind.
        lost: what of it has not arrived, where a receiver knows that something has not; no part of a message.
    """

    floats: tuple[Tensor, ...]
    integers: tuple[Tensor, ...] = ()
    labels: Tensor | None = None
    lost: Lost | None = None


@dataclass(frozen=True)
class Layout:
    """The fields of a payload, in its order: what one step sends, known from shapes alone."""

    floats: tuple[Floats, ...]
    integers: tuple[Integers, ...] = ()
    labels: Integers | None = None

    @property
    def uplink_bits(self) -> int:
        """Bits of all fields on their way."""
        integers = self.integers if self.labels is None else (self.labels, *self.integers)
        return sum(field.size for field in self.floats) + sum(field.size for field in integers)

    @property
    def downlink_bits(self) -> int:
        """Bits of the gradients that come back."""
        return self.gradients().uplink_bits

    def gradients(self) -> Layout:
        """What comes back: a gradient for each field of floats that has one."""
        return Layout(tuple(Floats(field.shape, field.back, back=0) for field in self.floats if field.back))

    def check(self, payload: Payload) -> None:
        """Hold a payload to this layout, so that what is priced is what is sent.

        Values of whole numbers are looked at on a CPU alone: looking at those on a GPU would cost a wait in each step.

        Raises:
            ValueError: if a field is missing, has another shape or type, or a value that its bits cannot tell.
        """
        labels = () if self.labels is None else (self.labels,)
        sent = () if payload.labels is None else (payload.labels,)
        for kind, fields, tensors in (
            ("floats", self.floats, payload.floats),
            ("integers", self.integers, payload.integers),
            ("labels", labels, sent),
        ):
            wanted, found = [field.shape for field in fields], [tuple(t.shape) for t in tensors]
            if wanted != found:
                raise ValueError(f"the payload has {kind} of shapes {found}, but its layout says {wanted}")
            expected = torch.float32 if kind == "floats" else torch.int64
            for tensor in tensors:
                if tensor.dtype != expected:
                    raise ValueError(f"the payload has {kind} of {tensor.dtype}, but what is priced is {expected}")
        for whole, tensor in zip((*self.integers, *labels), (*payload.integers, *sent)):
            if tensor.device.type == "cpu" and tensor.numel():
                least, most = (int(value) for value in tensor.aminmax())
                if least < 0 or most >= whole.limit:
                    raise ValueError(
                        f"the payload has whole numbers from {least} to {most}, but its layout says 0 to "
                        f"{whole.limit - 1} ({whole.bits} bits)"
                    )


def labels_of(shape: BatchShape) -> Integers:
    """The labels of a batch as a field: ceil(log2 L) bits each."""
    return Integers.one_of(shape.classes, (shape.batch,))


def hard_labels(payload: Payload) -> Tensor:
    """The labels (B,) of a payload that has them, for methods whose targets they are."""
    assert payload.labels is not None, "the labels have stayed behind"
    return payload.labels


def bits_for(n: int) -> int:
    """Bits that tell `n` values apart: log2(n) rounded up, computed in integers (0 for a single value)."""
    assert n >= 1, n
    return (n - 1).bit_length()


def outside_autocast(tensor: Tensor) -> torch.autocast:
    """Context in which operations on the tensor's device keep fp32, whatever autocast is active around it."""
    return torch.autocast(tensor.device.type, enabled=False)


def draw_device(generator: torch.Generator | None) -> torch.device:
    """Device on which `generator` draws: the CPU for none, so that all devices see the same numbers."""
    return torch.device("cpu") if generator is None else generator.device


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; on its way to a GPU the host does not wait for what that has still to do."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Compressor(ABC):
    """A client half (`compress`), a server half (`decompress`) and a price (`layout`).

    The only link between the halves is the payload: the platform detaches its floats, hands them to the
    server half, and feeds the gradients of those that have one back into the client half's graph. A subclass sits
    alone in its module, takes keyword-only options with plain types, and implements `compress`, `decompress`, `layout`
    and `nominal_ratios`; the rest has defaults that suit methods without parameters.

    Attributes:
        name: last part of the module that defines the class.
        needs_scores: whether `compress` reads the CLS attention; otherwise `s` may be None.
        at_eval: whether evaluation runs through the compressor.
        group_size: the one batch of a client that has too few samples for a full one is cut to a multiple of it; a
            `batch_size` that is none is to be refused in `check`.
        prefix_tokens: leading tokens (CLS first) that are always kept.
        client_half: parameters, and buffers of floats, that live, travel and are averaged with the client-side model.
        server_half: parameters, and buffers of floats, that live with the server-side model.
        cohort: how the clients of a training step are compressed as one; None for each by itself.
    """

    name: ClassVar[str]
    needs_scores: ClassVar[bool] = True
    at_eval: bool = False
    group_size: int = 1
    prefix_tokens: int = 1
    client_half: nn.Module | None = None
    server_half: nn.Module | None = None
    cohort: Cohort | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__module__.rpartition(".")[2]

    def __init__(self, *, at_eval: bool = False) -> None:
        self.at_eval = at_eval

    def bind(
        self,
        *,
        tokens: int,
        width: int,
        prefix_tokens: int = 1,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Create what depends on the model; methods without such state work unbound.

        Args:
            tokens: N, prefix tokens included.
            width: D.
            prefix_tokens: leading tokens that are always kept.
            generator: source of every random choice made here; the global one if None.

        Returns:
            The compressor itself.
        """
        self.prefix_tokens = prefix_tokens
        return self

    def check(self, *, batch_size: int, tokens: int | None = None, width: int | None = None) -> None:
        """Refuse options that cannot work with these sizes, before any work starts.

        Raises:
            ValueError: in one line that names the option.
        """
        return None

    def options_for(self, ratio: float) -> dict[str, Any]:
        """Options that make one client compress to about `ratio` where the others do otherwise (`client_profile`).

        For methods without `client_half` and `server_half`, whose parameters are those of one ratio.

        Args:
            ratio: compression ratio, in (0, 1].

        Raises:
            ValueError: if the ratio is not this method's to choose.
        """
        raise ValueError(
            f"compressor={self.name} has the same ratio for all clients, so client_profile must not give one another"
        )

    @abstractmethod
    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        """Client half: what is sent for one batch.

        Args:
            z: activations (B, N, D), with their graph.
            y: hard labels (B,), int64.
            s: attention of CLS to every token in the last client block (B, N), mean over heads, detached.
            generator: source of every random choice made here; the global one if None. Methods with random
                parts also take the draws themselves, each under a keyword of its own.
        """

    @abstractmethod
    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Server half: what the server-side model is trained on.

        Args:
            payload: as received; the result is differentiable with respect to its floats.
            shape: of the batch that was compressed.

        Returns:
            Activations, and targets: hard labels (B,) int64 or soft labels (T, L) float, one per activation.
        """

    @abstractmethod
    def layout(self, shape: BatchShape) -> Layout:
        """What `compress` sends for a batch of this shape, to the bit."""

    @abstractmethod
    def nominal_ratios(self, shape: BatchShape) -> tuple[float, float]:
        """Uplink and downlink price over that of no compression (Table 1), with the ratio as requested."""

    def expand(self, logits: Tensor, payload: Payload) -> Tensor:
        """With `at_eval`: one row of logits per original sample (B, L)."""
        return logits
