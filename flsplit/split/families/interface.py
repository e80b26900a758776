"""What a family of models is: how they are built, how many blocks they have, and how they are cut between two of them.

Shapes: B samples, N tokens (prefix tokens included), D width, L classes. What crosses is always (B, N, D): a grid of
positions with D channels is N = height * width tokens of width D.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from compressors.plugins import Plugins


class ClientModel(nn.Module, ABC):
    """The client-side model: images in, smashed activations and perhaps attention scores out.

    Attributes:
        blocks: that it has of the model, the last one next to the cut.
        has_scores: whether `forward` can give scores.
        prefix_tokens: leading tokens that stand for no place in the image, CLS first.
        with_scores: whether anyone reads the scores; set before the first batch.
    """

    blocks: nn.Module
    has_scores: bool = False
    prefix_tokens: int = 0
    with_scores: bool = False

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run the client side.

        Args:
            images: (B, 3, H, W), normalised.

        Returns:
            z: smashed activations (B, N, D), with gradient.
            s: attention of the class token to every token in the last client block, mean over heads, (B, N), no
                gradient; None without `with_scores`.
        """

    def watch(self) -> None:
        """Called when layers may have been put in the place of others."""
        return None


class ServerModel(nn.Module, ABC):
    """The server-side model.

    Attributes:
        blocks: that it has of the model, the first one next to the cut.
        head: the classifier.
    """

    blocks: nn.Module
    head: nn.Module

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Map activations (B, N', D), N' <= N, to logits (B, L)."""


class Family(ABC):
    """Models that are cut alike; one class to a module, without options."""

    @abstractmethod
    def build(self, name: str, *, classes: int, image_size: int, pretrained: bool | str) -> nn.Module:
        """Build a whole model.

        Args:
            name: which (`model.name`).
            classes: L; the head is new, unless the weights have one of as many.
            image_size: side of the square input, pixels.
            pretrained: weights from where the family has them (`True`), none (`False`), or a file.

        Returns:
            the model, with random numbers from torch's global generator, which is keyed by the run's seed here. If it
            has a `pretrained_cfg` with `mean` and `std`, as timm's have, images are normalised with them.

        Raises:
            UserError: (of `flsplit.errors`) in one line that names the key: an unknown name, or what cannot be cut.
        """

    @abstractmethod
    def depth(self, model: nn.Module) -> int:
        """How many blocks a model has; it can be cut after each but the last."""

    @abstractmethod
    def cut(self, model: nn.Module, split_point: int) -> tuple[ClientModel, ServerModel]:
        """Cut after block `split_point`, 1 <= split_point < depth.

        Returns:
            two models that share nothing with each other or with `model`, and compute what it computes one after the
            other, to the bit.
        """


_FAMILIES: Plugins[Family] = Plugins(
    "model.family", "flsplit.split.families", Family, helpers=("interface", "from_timm", "weights"),  # type: ignore[type-abstract]
)  # fmt: skip
available = _FAMILIES.available


def build(name: str) -> Family:
    """The family of a name.

    Args:
        name: one of this package ("vit"), or the dotted path of any importable module that defines one `Family`.

    Raises:
        ValueError: for an unknown name.
    """
    return _FAMILIES.build(name, {})
