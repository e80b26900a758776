"""What every metric is: it sees a model's logits batch by batch, and gives numbers at the end.

Shapes: B samples of a batch, n samples of an evaluation, L classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.plugins import Plugins


class Metric(ABC):
    """One way to measure a model; no options, one class to a module.

    An evaluation calls `reset`, `update` for each batch, and `compute` when there was one at least. The same object
    serves many evaluations: of the global model on the test set, of clients' models on their held-out parts.

    Args:
        classes: names of the L classes.

    Attributes:
        name: last part of the module that defines the class.
        higher_is_better: for what is said of the worst clients.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__module__.rpartition(".")[2]

    def __init__(self, *, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.reset()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its numbers: `test_NAME` in the tables, `final_test_NAME` in the summary."""
        return (self.name,)

    @abstractmethod
    def reset(self) -> None:
        """Forget what was seen."""

    @abstractmethod
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """See a batch; the tensors are this metric's own, to keep or to write into.

        Args:
            logits: (B, L) fp32, on the device.
            labels: (B,) int64, on the device.
        """

    @abstractmethod
    def compute(self) -> tuple[float, ...]:
        """A number for each of `columns`; NaN where there is none."""


class Collected(Metric):
    """A metric of all logits at once, as scikit-learn's are; they are kept on the CPU until the end.

    Where a logit is not finite the model has diverged: `of` is not asked, and every number is NaN.
    """

    def reset(self) -> None:
        """See `Metric`."""
        self._seen: list[tuple[Tensor, Tensor]] = []

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """See `Metric`."""
        self._seen.append((logits.cpu(), labels.cpu()))

    def compute(self) -> tuple[float, ...]:
        """See `Metric`."""
        logits, labels = (torch.cat(parts).numpy() for parts in zip(*self._seen))
        if not np.isfinite(logits).all():
            return (math.nan,) * len(self.columns)
        found = self.of(logits, labels)
        return found if isinstance(found, tuple) else (found,)

    @abstractmethod
    def of(self, logits: np.ndarray, labels: np.ndarray) -> float | tuple[float, ...]:
        """The metric's number, or one for each of `columns`.

        Args:
            logits: (n, L) fp32.
            labels: (n,) int64.
        """


_METRICS: Plugins[Metric] = Plugins(
    "metrics", "flsplit.metrics", Metric, helpers=("interface",),  # type: ignore[type-abstract]
)  # fmt: skip
available = _METRICS.available


def build(name: str, classes: tuple[str, ...]) -> Metric:
    """Create a metric.

    Args:
        name: one of this package ("top5"), or the dotted path of any importable module that defines one `Metric`.
        classes: names of the L classes.

    Raises:
        ValueError: for an unknown name.
    """
    return _METRICS.build(name, {"classes": classes})


def numbers_of(metric: Metric) -> dict[str, float]:
    """What a metric has found, by column.

    Raises:
        TypeError: if it does not give a number for each of its columns.
    """
    found = metric.compute()
    try:
        values = [float(value) for value in found]
    except (TypeError, ValueError):
        values = []
    if len(values) != len(metric.columns):
        raise TypeError(f"metrics: {metric.name} must give {len(metric.columns)} numbers, got {found!r}")
    return dict(zip(metric.columns, values))
