"""timm's Vision Transformers, cut between two blocks.

The client-side model is the patch embedding and the first `l` blocks, the server-side model the remaining
blocks, the final norm and the head (Section 3 of the ADC paper). Both are made of timm's own parts.

Shapes: B samples, N tokens (prefix tokens included), D embedding width, H heads, L classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flsplit.errors import UserError
from flsplit.split.families.from_timm import create
from flsplit.split.families.interface import ClientModel, Family, ServerModel


class ViTClient(ClientModel):
    """Patch embedding and first blocks: see `ClientModel`."""

    def __init__(self, vit: VisionTransformer, split_point: int) -> None:
        super().__init__()
        self.vit = _copied_without(vit, vit.blocks[split_point:])
        self.vit.blocks = self.vit.blocks[:split_point]
        for name in ("norm", "fc_norm", "head_drop", "head"):
            setattr(self.vit, name, nn.Identity())
        self.with_scores = self.has_scores = _has_scores(vit, split_point)
        self.prefix_tokens = vit.num_prefix_tokens
        self._qkv: Tensor | None = None
        self._watched: RemovableHandle | None = None
        self.watch()

    @property
    def blocks(self) -> nn.Sequential:  # type: ignore[override]
        """See `ClientModel`."""
        return self.vit.blocks

    def watch(self) -> None:
        """Look at the queries and keys of the last block from now on; to be called again when its layers change."""
        if self._watched is not None:
            self._watched.remove()
        if self.has_scores:
            self._watched = self._attention().qkv.register_forward_hook(self._keep_qkv)

    def _attention(self) -> Attention:
        return self.vit.blocks[-1].attn

    def _keep_qkv(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._qkv = output.detach() if self.with_scores else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `ClientModel`."""
        z = self.vit.forward_features(images)
        return z, self._cls_scores() if self.with_scores else None

    @torch.no_grad()
    def _cls_scores(self) -> Tensor:
        """One row of softmax(Q K^T / sqrt(d_k)) instead of the whole map: the class token's."""
        qkv, self._qkv = self._qkv, None
        assert qkv is not None
        attention = self._attention()
        batch, tokens, _ = qkv.shape
        q, k, _ = qkv.reshape(batch, tokens, 3, attention.num_heads, attention.head_dim).unbind(2)
        q_cls = attention.q_norm(q[:, :1].transpose(1, 2)) * attention.scale  # (B, H, 1, d_k)
        k = attention.k_norm(k.transpose(1, 2))  # (B, H, N, d_k)
        with torch.autocast(qkv.device.type, enabled=False):
            scores = (q_cls.float() @ k.float().transpose(-2, -1)).softmax(dim=-1)
        return scores[:, :, 0].mean(dim=1)


class ViTServer(ServerModel):
    """The remaining blocks, norm and head, on any number of tokens: see `ServerModel`."""

    def __init__(self, vit: VisionTransformer, split_point: int) -> None:
        super().__init__()
        self.vit = _copied_without(vit, vit.blocks[:split_point])
        self.vit.blocks = self.vit.blocks[split_point:]
        for name in ("patch_embed", "pos_drop", "patch_drop", "norm_pre"):
            setattr(self.vit, name, nn.Identity())
        for name in ("cls_token", "reg_token", "pos_embed"):
            setattr(self.vit, name, None)

    @property
    def blocks(self) -> nn.Sequential:  # type: ignore[override]
        """See `ServerModel`."""
        return self.vit.blocks

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """See `ServerModel`."""
        return self.vit.head

    def forward(self, z: Tensor) -> Tensor:
        """See `ServerModel`."""
        return self.vit.forward_head(self.vit.norm(self.vit.blocks(z)))


def _copied_without(vit: VisionTransformer, blocks: Iterable[nn.Module]) -> VisionTransformer:
    """A copy that has None in the place of blocks that the other side has."""
    return copy.deepcopy(vit, {id(block): None for block in blocks})


class ViTs(Family):
    """All of timm's models that are a plain `VisionTransformer`, and `vit_micro`."""

    def build(self, name: str, *, classes: int, image_size: int, pretrained: bool | str) -> nn.Module:
        """See `Family`."""
        if name == "vit_micro":
            return _vit_micro(classes, image_size)
        model = create(name, "a Vision Transformer", classes=classes, pretrained=pretrained, img_size=image_size)
        _check_image_size(check_cuttable(model), name, image_size)
        return model

    def depth(self, model: nn.Module) -> int:
        """See `Family`."""
        return len(check_cuttable(model).blocks)

    def cut(self, model: nn.Module, split_point: int) -> tuple[ClientModel, ServerModel]:
        """See `Family`."""
        vit = check_cuttable(model)
        return ViTClient(vit, split_point), ViTServer(vit, split_point)


def check_cuttable(model: nn.Module) -> VisionTransformer:
    """The model, which is a plain ViT.

    Raises:
        UserError: naming what it is.
    """
    if type(model) is not VisionTransformer:
        name = type(model).__name__
        raise UserError(f"model: {name} cannot be split; it must be a plain timm VisionTransformer such as deit_tiny")
    return model


def _has_scores(vit: VisionTransformer, split_point: int) -> bool:
    """Whether the class token's attention says what the classifier will look at: it is there, and classifies."""
    attention = getattr(vit.blocks[split_point - 1], "attn", None)
    classifies = vit.cls_token is not None and vit.global_pool == "token" and vit.attn_pool is None
    return classifies and type(attention) is Attention


def _check_image_size(model: VisionTransformer, name: str, image_size: int) -> None:
    """Refuse a size whose last pixels no patch would cover."""
    patch = max(model.patch_embed.patch_size)
    if image_size % patch or image_size < patch:
        below = max(1, image_size // patch) * patch
        raise UserError(
            f"model.image_size must be a multiple of {patch} for {name} (its patches), got {image_size}; "
            f"{below} and {below + patch} are the nearest"
        )


def _vit_micro(classes: int, image_size: int) -> VisionTransformer:
    """Six narrow blocks over an 8 x 8 grid of patches (4 x 4 for images below 16 pixels).

    What does not divide is padded at the right and below, and the grid is a little larger (10 x 10 of 28 pixels).
    """
    patch = max(1, image_size // (8 if image_size >= 16 else 4))
    whole = -(-image_size // patch) * patch
    vit = VisionTransformer(
        img_size=whole, patch_size=patch, embed_dim=64, depth=6, num_heads=4, mlp_ratio=2.0, num_classes=classes,
        dynamic_img_pad=whole != image_size,
    )  # fmt: skip
    vit.patch_embed.strict_img_size = whole == image_size
    return vit
