"""Averages of models, delegated to Flower strategies of the same names.

Those that work on the mean of the replies (FedAvg, FedProx, FedAvgM, FedAdam) receive one running mean, so that a round
of many clients never holds more than one model at a time. It is accumulated in fp64 and in the order of the clients:
one client's mean is its own model to the bit, and the order of replies does not matter. FedAvg and FedProx leave the
mean as it is, which is known without asking them. Those that compare clients
(FedMedian, FedTrimmedAvg, Krum) hold every client's model of a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from torch import Tensor

from flsplit.errors import RunFailed, UserError, nearest, shown
from flsplit.server.roll import TooFew
from flsplit.transport.records import addressed
from flsplit.typed import read

_WIDENED = 1 << 17  # numbers that are fp64 at a time on their way into a mean: they stay in a core's cache
_PART = 1 << 20  # numbers that Flower sees as one array: medians and trimmed means need only so many at once, by client


@dataclass(frozen=True)
class NoOptions:
    """Of FedAvg (McMahan et al. 2017) and FedMedian (Yin et al. 2018), whose median ignores sample counts."""


@dataclass(frozen=True)
class FedAvgMOptions:
    """Momentum on the server: v = server_momentum v + (w - mean); w = w - server_learning_rate v (Hsu et al. 2019).

    Flower's own default, a momentum of 0, is FedAvg; 0.9 is one of the choices of the paper.
    """

    server_learning_rate: float = 1.0
    server_momentum: float = 0.9


@dataclass(frozen=True)
class FedAdamOptions:
    """Adam on the server, with d = mean - w for a gradient (Reddi et al. 2021).

    m = beta_1 m + (1 - beta_1) d; v = beta_2 v + (1 - beta_2) d^2; w = w + a m / (sqrt(v) + tau), where Flower, unlike
    the paper, has a = eta sqrt(1 - beta_2^(t + 1)) / (1 - beta_1^(t + 1)) in round t = 1, 2, ...

    A number moves by about `eta` a round where its d is well above `tau`, so Flower's default of 0.1 would wreck a
    pretrained model. With eta = tau = 1e-3, numbers of small d move by about the smoothed d, much as in FedAvg, and
    none by much more than 1e-3. Flower takes `eta_l` and ignores it: the clients' step size is `lr`.
    """

    eta: float = 1e-3
    eta_l: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3


@dataclass(frozen=True)
class FedProxOptions:
    """FedAvg of clients that add (proximal_mu / 2) |w - w_global|^2 to their loss (Li et al. 2020).

    It must be given: 0 is FedAvg, and the paper's choices go from 0.001 to 1.
    """

    proximal_mu: float


@dataclass(frozen=True)
class FedTrimmedAvgOptions:
    """Mean, coordinate by coordinate, without the int(beta n) least and most of n clients (Yin et al. 2018).

    Sample counts are ignored.
    """

    beta: float = 0.2


@dataclass(frozen=True)
class KrumOptions:
    """The one model with the least sum of squared distances to its n - f - 2 nearest (Blanchard et al. 2017).

    Of n clients, f = num_malicious_nodes; n must be at least 2 f + 3. Sample counts are ignored.
    """

    num_malicious_nodes: int = 0


@dataclass(frozen=True)
class Kind:
    """How a Flower strategy is used.

    Attributes:
        strategy: its class.
        options: its keyword arguments, a dataclass.
        compares: whether it must see every client's model, rather than their mean.
        carried: its attributes that one round leaves to the next.
    """

    strategy: Any
    options: type
    compares: bool = False
    carried: tuple[str, ...] = ()


AGGREGATORS = {
    "fedavg": Kind(flower.FedAvg, NoOptions),
    "fedavgm": Kind(flower.FedAvgM, FedAvgMOptions, carried=("momentum_vector",)),
    "fedadam": Kind(flower.FedAdam, FedAdamOptions, carried=("m_t", "v_t")),
    "fedprox": Kind(flower.FedProx, FedProxOptions),
    "fedmedian": Kind(flower.FedMedian, NoOptions, compares=True),
    "fedtrimmedavg": Kind(flower.FedTrimmedAvg, FedTrimmedAvgOptions, compares=True),
    "krum": Kind(flower.Krum, KrumOptions, compares=True),
}

_RULES: tuple[tuple[set[str], str, Callable[[float], bool]], ...] = (
    ({"server_learning_rate", "eta", "eta_l", "tau"}, "a number above 0", lambda x: 0 < x < math.inf),
    ({"server_momentum", "beta_1", "beta_2"}, "at least 0 and below 1", lambda x: 0 <= x < 1),
    ({"beta"}, "at least 0 and below 0.5", lambda x: 0 <= x < 0.5),
    ({"proximal_mu", "num_malicious_nodes"}, "at least 0", lambda x: 0 <= x < math.inf),
)


class RunningMean:
    """Weighted mean of vectors of one length, accumulated in the order of `add`; those of weight 0 are left out."""

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._sum: Tensor | None = None
        self._weight = 0

    @property
    def empty(self) -> bool:
        """Whether there is no mean, for want of vectors or of weight."""
        return not self._weight

    def add(self, parts: Sequence[Tensor], weight: int) -> None:
        """Take in a (P,) fp32 vector in parts, which must not change any more, with an integer weight."""
        if not weight:
            return
        if self._first is None:
            self._first = _whole(parts)
        else:
            if self._sum is None:
                self._sum = self._first.to(torch.float64, copy=True).mul_(self._weight)
            for of_sum, part in zip(self._sum.split([len(part) for part in parts]), parts):
                for total, numbers in zip(of_sum.split(_WIDENED), part.split(_WIDENED)):
                    total.add_(numbers.double(), alpha=weight)
        self._weight += weight

    def value(self) -> Tensor | None:
        """The mean, (P,) fp32; None if there is none."""
        return self._first if self._sum is None else (self._sum / self._weight).float()

    def replies(self) -> list[tuple[Tensor, int]]:
        """The mean, (P,) fp32, with the sum of weights, as if one client had sent it; nothing if there is none."""
        mean = self.value()
        return [] if mean is None else [(mean, self._weight)]


class Replies:
    """All vectors of a round, in the order of `add`; those of weight 0 are left out."""

    def __init__(self) -> None:
        self._replies: list[tuple[Tensor, int]] = []

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return not self._replies

    def add(self, parts: Sequence[Tensor], weight: int) -> None:
        """Take in a (P,) fp32 vector in parts, which must not change any more, with an integer weight."""
        if weight:
            self._replies.append((_whole(parts), weight))

    def replies(self) -> list[tuple[Tensor, int]]:
        """What was added: vectors (P,) fp32 and their weights."""
        return self._replies


class Aggregator:
    """One Flower strategy, used for its `aggregate_train` alone.

    Args:
        name: a key of `AGGREGATORS`.
        options: keyword arguments of that Flower strategy; defaults are those of the dataclasses above.

    Attributes:
        proximal_mu: weight of the proximal term in the clients' loss; 0 for all but fedprox.
        fewest: models that it needs in a round. Flower goes on with fewer and gives no protection: a trimmed mean that
            trims nothing, a Krum whose guarantee does not hold.

    Raises:
        UserError: unknown name or option, or a value that cannot be.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        if name not in AGGREGATORS:
            known = ", ".join(AGGREGATORS)
            raise UserError(
                f"strategy.aggregator must be one of {known}, got {shown(name)}{nearest(str(name), AGGREGATORS)}"
            )
        values = _read(name, options)
        self.name, self._kind, self._strategy = name, AGGREGATORS[name], AGGREGATORS[name].strategy(**values)
        self.proximal_mu = float(values.get("proximal_mu", 0.0))
        self.fewest = _fewest(name, values)
        self._title = f"strategy.aggregator={name}" + "".join(f", {key}={value}" for key, value in values.items())

    def collect(self) -> RunningMean | Replies:
        """What the models of a round are to be added to: `add(parts, weight)`, `empty`."""
        return Replies() if self._kind.compares else RunningMean()

    def aggregate(
        self, number: int, current: Tensor, collected: RunningMean | Replies, *, plain: Sequence[slice] = ()
    ) -> Tensor:
        """Turn the clients' vectors of a round into the next global vector.

        Args:
            number: of the round, from 1.
            current: the global vector that the round started from, (P,) fp32.
            collected: from `collect`.
            plain: parts that take no step along the mean but become it; strategies that choose among clients do so of
                these parts too.

        Returns:
            (P,) fp32.

        Raises:
            TooFew: if there are fewer than it takes.
        """
        replies = collected.replies()
        if len(replies) < self.fewest:
            needs = f"needs the models of at least {self.fewest} clients in a round"
            raise TooFew(f"{self._title} {needs}, got {len(replies)} in round {number}")
        if not self._kind.compares and not self._kind.carried:
            return replies[0][0].clone()
        if self._kind.carried:
            parts = _parts(current)
            self._strategy.current_arrays = self._shaped(parts) if self.name == "fedadam" else ArrayRecord(parts)
        if self.name == "krum":
            # Flower has |x - y|^2 = |x|^2 + |y|^2 - 2 xy in fp32, where large weights drown small distances; less so
            # if all are moved by the same vector, which leaves distances as they are.
            _, metrics = self._ask(number, [(vector - current, weight) for vector, weight in replies])
            return replies[round(metrics["reply"])][0].clone()
        arrays, _ = self._ask(number, replies)
        new = torch.from_numpy(np.concatenate(arrays.to_numpy_ndarrays()).astype(np.float32, copy=False))
        if self._kind.carried:
            for part in plain:
                new[part] = replies[0][0][part]
        return new

    def state(self) -> dict[str, Tensor]:
        """What the next round needs of the rounds before, by name, (P,) each; with `load`, it gives the same bits."""
        held = {key: getattr(self._strategy, key) for key in self._kind.carried}
        lists = {key: list(x.values()) if isinstance(x, dict) else x for key, x in held.items() if x is not None}
        return {key: torch.from_numpy(np.concatenate(parts)) for key, parts in lists.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, to an aggregator of the same name.

        Raises:
            RunFailed: if it is another's.
        """
        if state and set(state) != set(self._kind.carried):
            raise RunFailed(f"this is not the state of {self._title}: it holds {', '.join(state)}")
        for key in self._kind.carried:
            setattr(self._strategy, key, self._shaped(_parts(state[key].clone())) if key in state else None)

    def _shaped(self, parts: list[np.ndarray]) -> Any:
        """A vector's parts as the strategy keeps them: by key in FedAdam, a list in FedAvgM."""
        return {str(i): part for i, part in enumerate(parts)} if self.name == "fedadam" else parts

    def _ask(self, number: int, replies: list[tuple[Tensor, int]]) -> tuple[Any, Any]:
        """Flower's `aggregate_train`; the metric `reply` is the mean position of the replies it has taken."""
        messages = []
        for position, (vector, weight) in enumerate(replies):
            metrics = MetricRecord({"num-examples": weight, "reply": position})
            content = RecordDict({"arrays": ArrayRecord(_parts(vector)), "metrics": metrics})
            messages.append(addressed(content, MessageType.TRAIN, 1, 1))
        return self._strategy.aggregate_train(number, messages)


def _whole(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([*parts])


def _parts(vector: Tensor) -> list[np.ndarray]:
    return [part.numpy() for part in vector.split(_PART)]


def _read(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    kind, at = AGGREGATORS[name].options, "strategy.aggregator_args."
    known = [field.name for field in fields(kind)]
    for key in options:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise UserError(f"{at}{key} is no option of {name}, which takes {takes}{nearest(str(key), known)}")
    if name == "fedprox" and "proximal_mu" not in options:
        raise UserError(f"{at}proximal_mu is missing: fedprox needs a number of at least 0, such as 0.01")
    values = asdict(read(kind, options, at=at))
    for keys, words, holds in _RULES:
        for key, value in values.items():
            if key in keys and not holds(value):
                raise UserError(f"{at}{key} must be {words}, got {shown(value)}")
    return values


def _fewest(name: str, values: Mapping[str, Any]) -> int:
    if name == "krum":
        return 2 * int(values["num_malicious_nodes"]) + 3
    if name == "fedtrimmedavg" and values["beta"]:
        beta = max(values["beta"], 1e-9)
        count = math.ceil(1 / beta)
        return count + (int(beta * count) < 1)  # 49 * (1 / 49) is below 1
    return 1
