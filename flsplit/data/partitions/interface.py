"""What every way to deal samples out to clients is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compressors.plugins import Plugins
from flsplit.data.errors import DataError
from flsplit.errors import options_of_the_user

Parts = Sequence[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The training samples of a data set, as far as a partition looks at them.

    Attributes:
        labels: (n,) int64 from 0.
        classes: how many there are, with or without samples.
        columns: the further columns that the partition has asked for, each (n,), int64 or text.
    """

    labels: np.ndarray
    classes: int
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, positions: np.ndarray) -> Samples:
        """The samples at `positions`, in that order."""
        columns = {name: values[positions] for name, values in self.columns.items()}
        return Samples(labels=self.labels[positions], classes=self.classes, columns=columns)


class Partition(ABC):
    """One way to deal samples out; keyword-only options with plain types, one class to a module.

    Args:
        holdout: fraction of each client's samples kept for its own test, in [0, 1).

    Attributes:
        columns: further columns of the data set that `deal` looks at; set by the constructor where there are any.

    Raises:
        DataError: for a value that cannot be, in one line that names the option.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, *, holdout: float = 0.0) -> None:
        if not 0 <= holdout < 1:
            raise DataError(f"partition.holdout={holdout}: must be at least 0 and below 1")
        self.holdout = holdout

    def check(self, samples: Samples, clients: int) -> None:  # noqa: B027 (most have nothing to add)
        """Refuse what the data do not allow; called before anything is written.

        Raises:
            ValueError: in one line that names the key.
        """

    @abstractmethod
    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Parts:
        """Deal the samples out.

        Args:
            samples: all of them, shuffled: whoever takes the first ten takes ten at random.
            clients: how many there are, at most as many as samples.
            rng: the only source of random numbers; keyed by the run's seed.

        Returns:
            for each client its positions in `samples`, in any order, none of them twice. A client without any
            gets one sample of the client that has most.
        """


_PARTITIONS: Plugins[Partition] = Plugins(
    "partition", "flsplit.data.partitions", Partition, helpers=("deal", "interface"),  # type: ignore[type-abstract]
)  # fmt: skip
available = _PARTITIONS.available


def build(name: str, **options: Any) -> Partition:
    """Create a partition.

    Args:
        name: one of this package ("iid"), or the dotted path of any importable module that defines one `Partition`.
        options: the keyword arguments of its class.

    Raises:
        UserError: for an unknown name or option, or a value that cannot be; one line each.
    """
    with options_of_the_user():
        return _PARTITIONS.build(name, options)
