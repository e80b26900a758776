"""Build a whole model, and cut it in two.

Shapes: B samples, N tokens, D width, L classes.
"""

from __future__ import annotations

import timm
import torch
from torch import nn

from flsplit.errors import UserError, options_of_the_user
from flsplit.split import families
from flsplit.split.families import ClientModel, ServerModel
from flsplit.streams import derived_seed


def family_of(name: str, family: str | None = None) -> str:
    """The family of a model: the one that the user names, else that of timm's module of this name."""
    if family is not None:
        return family
    return "resnet" if name.partition(".")[0] in timm.list_models(module="resnet") else "vit"


def build(
    name: str, *, classes: int, image_size: int, pretrained: bool | str, seed: int, family: str | None = None
) -> nn.Module:
    """Build a whole model, ready to be cut; its random parts depend on `seed` alone.

    Args:
        name: of the family: `vit_micro`, `deit_tiny`, `deit_small`, or the name of a timm model.
        classes: L; the head is new, unless the weights have one of as many.
        image_size: side of the square input, pixels.
        pretrained: weights of the family's own (`True`), none (`False`), or a file.
        seed: of the initialisation.
        family: see `family_of`.

    Raises:
        UserError: unknown name, unusable model or weights.
    """
    with options_of_the_user():
        made = families.build(family_of(name, family))
    with torch.random.fork_rng(devices=[]):  # timm initialises from the global generator
        torch.manual_seed(derived_seed(seed, "init"))
        return made.build(name, classes=classes, image_size=image_size, pretrained=pretrained)


def cut(model: nn.Module, split_point: int, family: str = "vit") -> tuple[ClientModel, ServerModel]:
    """Cut `model` after block `split_point`.

    The two parts own copies of the weights: nothing is shared between them or with `model`. Client then
    server, with nothing in between, computes what `model` computes, to the bit, gradients included.

    Args:
        model: from `build`.
        split_point: l, the number of blocks on the client, 1 <= l < depth.
        family: of the model.

    Raises:
        UserError: if the model cannot be cut there; the message names the reason.
    """
    made = families.build(family)
    depth = made.depth(model)
    if not 1 <= split_point < depth:
        raise UserError(
            f"model.split_point must be between 1 and {depth - 1} for a model of {depth} blocks, got {split_point}"
        )
    return made.cut(model, split_point)
