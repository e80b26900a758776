"""Averages of models, delegated to a Flower strategy.

Strategies that work on the mean of the replies (FedAvg, FedAvgM, FedAdam, ...) receive one running mean, so that a
round of many clients never holds more than one model at a time. It is accumulated in fp64 and in the order of the
clients: one client's mean is its own model to the bit, and the order of replies does not matter.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from torch import Tensor

from flsplit.errors import UserError
from flsplit.typed import nearest

AGGREGATORS = {"fedavg": flower.FedAvg}
_OURS = {
    "fraction_train",
    "fraction_evaluate",
    "min_train_nodes",
    "min_evaluate_nodes",
    "min_available_nodes",
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
    "train_metrics_aggr_fn",
    "evaluate_metrics_aggr_fn",
}


class RunningMean:
    """Weighted mean of vectors of one length, accumulated in the order of `add`."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._weight = 0

    def add(self, vector: Tensor, weight: int) -> None:
        """Take in a (P,) fp32 vector with an integer weight."""
        if self._sum is None:
            self._sum = torch.zeros(vector.numel(), dtype=torch.float64)
        self._sum.add_(vector.double(), alpha=weight)
        self._weight += weight

    def value(self) -> Tensor | None:
        """The mean, (P,) fp32; None if nothing has been added."""
        return None if self._sum is None or not self._weight else (self._sum / self._weight).float()


class Aggregator:
    """One Flower strategy, used for its `aggregate_train` alone.

    Args:
        name: a key of `AGGREGATORS`.
        options: keyword arguments of that Flower strategy.

    Raises:
        UserError: unknown name or option.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        if name not in AGGREGATORS:
            raise UserError(
                f"strategy.aggregator must be one of {', '.join(AGGREGATORS)}, got {name!r}{nearest(name, AGGREGATORS)}"
            )
        kind = AGGREGATORS[name]
        allowed = [key for key in inspect.signature(kind).parameters if key not in _OURS]
        for key in options:
            if key not in allowed:
                raise UserError(f"strategy.aggregator_args.{key} is no option of {name}{nearest(str(key), allowed)}")
        try:
            self._strategy = kind(**options)
        except (TypeError, ValueError) as error:
            raise UserError(f"strategy.aggregator_args: {str(error).splitlines()[0]}") from error

    def aggregate(self, round: int, mean: Tensor, weight: int) -> Tensor:
        """Turn the clients' mean (P,) into the next global vector (P,), fp32."""
        content = RecordDict(
            {
                "arrays": ArrayRecord([mean.numpy()]),
                "metrics": MetricRecord({"num-examples": weight}),
            }
        )
        reply = Message(content, dst_node_id=1, message_type=MessageType.TRAIN)
        arrays, _ = self._strategy.aggregate_train(round, [reply])
        assert arrays is not None
        [vector] = arrays.to_numpy_ndarrays()
        return torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float32))
