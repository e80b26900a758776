"""A weights file and the model that is to start from it: timm drops much without a word, here nothing is dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn

from flsplit.errors import UserError

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # in the order in which timm looks for them
_RESAMPLED = ("pos_embed",)  # to another image size, by timm


def check(model: nn.Module, name: str, path: str) -> None:
    """Refuse a file that is not of this model, the head and the size of the position embedding apart.

    Args:
        model: as built.
        name: of the model.
        path: of the file.

    Raises:
        UserError: for what is in the file and not in the model or the other way round, for other shapes, and for
            numbers that are not finite, or no floats.
    """
    _, _, given = _read(path)
    own, head = model.state_dict(), _head(model)
    missing, more = own.keys() - given.keys() - head, given.keys() - own.keys() - head
    shapes = {k for k in own.keys() & given.keys() - head if k not in _RESAMPLED and own[k].shape != given[k].shape}
    whole = {k for k in own.keys() & given.keys() if own[k].is_floating_point() and not given[k].is_floating_point()}
    spoilt = {key for key in given if given[key].is_floating_point() and not bool(torch.isfinite(given[key]).all())}
    wrong = f"model.pretrained: {path} does not fit {name}"
    if missing:
        raise UserError(f"{wrong}: it lacks {_some(missing)}")
    if more:
        raise UserError(f"{wrong}: it has {_some(more)}, which the model has not")
    if shapes:
        key = min(shapes)
        raise UserError(f"{wrong}: {_some(shapes)} is {tuple(given[key].shape)}, in the model {tuple(own[key].shape)}")
    if whole:
        raise UserError(
            f"{wrong}: {_some(whole)} is {given[min(whole)].dtype}, codes of a quantiser perhaps, not weights"
        )
    if spoilt:
        raise UserError(f"model.pretrained: {path} holds numbers that are not finite, in {_some(spoilt)}")


def classes(path: str, heads: str | Sequence[str]) -> int:
    """How many a file's head tells apart; 0 where it has none, or several of unlike sizes.

    Args:
        path: of the file.
        heads: names of the model's classifiers.
    """
    _, _, given = _read(path)
    sizes = {len(given[key]) for head in _names(heads) if (key := f"{head}.weight") in given}
    return sizes.pop() if len(sizes) == 1 else 0


def said(model: nn.Module, path: str) -> list[str]:
    """What is done with a file that fits, beyond loading it, a line each.

    Args:
        model: as built.
        path: of the file.
    """
    wrapper, prefixed, given = _read(path)
    own, notes = model.state_dict(), []
    if wrapper is not None:
        notes.append(f"the weights are those under {wrapper!r}")
    if prefixed:
        notes.append("the prefix of a wrapper (module., _orig_mod.) is taken off their names")
    fits = all(key in given and given[key].shape == own[key].shape for key in _head(model))
    notes.append("the head is that of the file" if fits else "the head is new")
    for key in _RESAMPLED:
        if key in own and own[key].shape != given[key].shape:
            notes.append(f"{key} is resampled from {given[key].shape[1]} to {own[key].shape[1]} tokens")
    return [f"model.pretrained={path}: {note}" for note in notes]


def _read(path: str) -> tuple[str | None, bool, Mapping[str, Tensor]]:
    """The key that the weights lie under, whether a prefix is taken off, and the weights; nothing is unpickled."""
    if Path(path).suffix == ".safetensors":
        content: Any = load_file(path)
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
    wrapper = next((key for key in _WRAPPERS if content.get(key) is not None), None)
    raw = content if wrapper is None else content[wrapper]
    clean = clean_state_dict(raw)
    return wrapper, clean.keys() != raw.keys(), clean


def _head(model: nn.Module) -> set[str]:
    """Names of the classifier's weights, which are new where the number of classes is."""
    found = cast("dict[str, Any]", model.pretrained_cfg)["classifier"]
    return {name for name in model.state_dict() if name.partition(".")[0] in _names(found)}


def _names(classifiers: str | Sequence[str]) -> Sequence[str]:
    return (classifiers,) if isinstance(classifiers, str) else classifiers


def _some(names: set[str]) -> str:
    return min(names) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
