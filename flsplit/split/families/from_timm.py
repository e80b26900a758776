"""Models as timm builds them, with everything that can go wrong said in one line."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants
from torch import nn

from flsplit.errors import UserError, nearest
from flsplit.online import HUB, bars
from flsplit.online import reachable as hub_reachable
from flsplit.split import memory
from flsplit.split.families import weights

DEIT = {"deit_tiny": "deit_tiny_patch16_224.fb_in1k", "deit_small": "deit_small_patch16_224.fb_in1k"}


def create(name: str, kind: str, *, classes: int, pretrained: bool | str, **options: object) -> nn.Module:
    """Build a model of timm's.

    Args:
        name: `deit_tiny`, `deit_small`, or timm's name.
        kind: what it should be, for a message.
        classes: L; the head is new, unless the weights have one of as many.
        pretrained: timm's weights from its Hub (`True`), none (`False`), or a weights file in timm's names.
        options: further arguments of the model.

    Raises:
        UserError: unknown name, unusable model or weights.
    """
    _check_name(name)
    options["num_classes"] = classes
    _check_memory(name, options)
    try:
        if isinstance(pretrained, str):
            options["pretrained_cfg_overlay"] = _local(name, pretrained)
        with bars(HUB), _offline_if_unreachable() if pretrained is True else nullcontext(), _quiet():
            model: nn.Module = timm.create_model(DEIT.get(name, name), pretrained=bool(pretrained), **options)
    except Exception as error:
        if isinstance(pretrained, str):
            _look_closer(name, pretrained, options)
        if (reason := _explain(name, kind, pretrained, error)) is None:
            raise
        raise UserError(reason) from error
    if isinstance(pretrained, str):
        weights.check(model, name, pretrained)
    return model


def _local(name: str, path: str) -> dict[str, object]:
    """What timm is told of a weights file: how many classes it is for, too, or timm takes them for its own weights'."""
    config = timm.get_pretrained_cfg(DEIT.get(name, name).partition(".")[0])
    heads = None if config is None else config.classifier
    return {"file": str(Path(path)), "num_classes": weights.classes(path, heads or ())}


def _check_name(name: str) -> None:
    """Refuse what timm does not know, before it looks on the Hub or on the disk."""
    base, _, tag = DEIT.get(name, name).partition(".")
    if not timm.is_model(base):
        hint = nearest(name, ["vit_micro", *DEIT, *timm.list_models()])
        raise UserError(f"model.name must be a model of timm, got {name!r}{hint}")
    if tag and f"{base}.{tag}" not in (tags := timm.list_pretrained(f"{base}.*")):
        raise UserError(f"model.name: timm has no weights {name!r}{nearest(name, tags)}")


def _check_memory(name: str, options: dict[str, Any]) -> None:
    """Refuse a model that is too large for this machine, before it is made."""
    try:
        with torch.device("meta"), _quiet():
            model = timm.create_model(DEIT.get(name, name).partition(".")[0], pretrained=False, **options)
    except Exception:  # what is wrong with it is said when it is made in earnest
        return
    size = sum(parameter.numel() for parameter in model.parameters())
    twice = 2 * memory.FLOAT * size  # whole, and cut
    memory.check(
        twice, torch.device("cpu"), f"model.name={name} with {size / 1e6:,.0f}M parameters", "take a smaller one"
    )


def _look_closer(name: str, path: str, options: dict[str, Any]) -> None:
    """Say what is wrong with a file that timm could not load, if it is a weights file at all.

    Raises:
        UserError: see `weights.check`.
    """
    bare = {key: value for key, value in options.items() if key != "pretrained_cfg_overlay"}
    try:
        with _quiet():
            weights.check(timm.create_model(DEIT.get(name, name), **bare), name, path)
    except UserError:
        raise
    except Exception:  # it cannot be read; `_explain` has words for that
        return


def _explain(name: str, kind: str, pretrained: bool | str, error: Exception) -> str | None:
    """What the user can do about timm's refusal; None where nothing of the user's is behind it."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, TypeError):
        return f"model: {name} is not {kind} that timm can build for a given image size"
    if isinstance(pretrained, str):
        if "size mismatch" in str(error):
            return f"model.pretrained: {pretrained} does not fit {name}: {str(error).splitlines()[1].strip()}"
        return f"model.pretrained: {pretrained} is not a weights file that timm can read ({reason.partition('. ')[0]})"
    if pretrained and isinstance(error, OSError):
        return (
            f"model.pretrained=true: the Hugging Face Hub, which has the weights of {name}, cannot be reached; "
            "give a local file with model.pretrained=FILE, or model.pretrained=false"
        )
    return None if name in DEIT else f"model: cannot build {name}: {reason}"


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of PyTorch's and timm's: what matters of them is said by `build`'s own errors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Spare the user the Hub's many retries where it cannot be reached; cached weights are found all the same."""
    if hub_reachable():
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
