"""Models as Ray's object store holds them: arrays by key, which a reader maps into its memory instead of copying."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from flsplit.split.side import SideState

Arrays = dict[str, dict[str, np.ndarray]]  # key of a model -> fields of its `SideState` that are there


def to_arrays(states: Mapping[str, SideState]) -> Arrays:
    """Models as arrays."""
    return {
        key: {field: values.numpy() for field, values in vars(state).items() if values is not None}
        for key, state in states.items()
    }


def from_arrays(objects: Iterable[Arrays]) -> dict[str, SideState]:
    """The models of several objects; their tensors are read-only views."""
    return {
        key: SideState(**{field: _view(array) for field, array in fields.items()})
        for arrays in objects
        for key, fields in arrays.items()
    }


def _view(array: np.ndarray) -> torch.Tensor:
    """A tensor over read-only shared memory; nothing in flsplit writes to a state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)
