"""Cut a timm Vision Transformer in two, and build the ones that flsplit offers.

The client-side model is the patch embedding and the first `l` blocks, the server-side model the remaining
blocks, the final norm and the head (Section 3 of the ADC paper). Both are made of timm's own parts.

Shapes: B samples, N tokens (prefix tokens included), D embedding width, H heads, L classes.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import timm
import torch
from huggingface_hub import constants
from timm.layers import Attention
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flsplit.errors import UserError
from flsplit.online import reachable as hub_reachable
from flsplit.streams import derived_seed
from flsplit.typed import nearest


class ClientModel(nn.Module):
    """The first blocks of a ViT: images in, smashed activations and CLS attention out."""

    def __init__(self, vit: VisionTransformer, split_point: int) -> None:
        super().__init__()
        self.vit = copy.deepcopy(vit)
        self.vit.blocks = self.vit.blocks[:split_point]
        for name in ("norm", "fc_norm", "head_drop", "head"):
            setattr(self.vit, name, nn.Identity())
        self.with_scores = True  # False where no one reads them
        self._qkv: Tensor | None = None
        self._watched: RemovableHandle | None = None
        self.watch()

    def watch(self) -> None:
        """Look at the queries and keys of the last block from now on; to be called again when its layers change."""
        if self._watched is not None:
            self._watched.remove()
        self._watched = self._attention().qkv.register_forward_hook(self._keep_qkv)

    def _attention(self) -> Attention:
        return self.vit.blocks[-1].attn

    def _keep_qkv(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._qkv = output.detach() if self.with_scores else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run the client side.

        Args:
            images: (B, 3, H, W), normalised.

        Returns:
            z: smashed activations (B, N, D), with gradient.
            s: attention of the class token in the last client block, mean over heads, (B, N), no gradient;
                None without `with_scores`.
        """
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


class ServerModel(nn.Module):
    """The remaining blocks, norm and head: activations (of any number of tokens) in, logits out."""

    def __init__(self, vit: VisionTransformer, split_point: int) -> None:
        super().__init__()
        self.vit = copy.deepcopy(vit)
        self.vit.blocks = self.vit.blocks[split_point:]
        for name in ("patch_embed", "pos_drop", "patch_drop", "norm_pre"):
            setattr(self.vit, name, nn.Identity())
        for name in ("cls_token", "reg_token", "pos_embed"):
            setattr(self.vit, name, None)

    def forward(self, z: Tensor) -> Tensor:
        """Map activations (B, N', D), N' <= N, to logits (B, L)."""
        return self.vit.forward_head(self.vit.norm(self.vit.blocks(z)))


def cut(model: VisionTransformer, split_point: int) -> tuple[ClientModel, ServerModel]:
    """Cut `model` after block `split_point`.

    The two parts own copies of the weights: nothing is shared between them or with `model`. Client then
    server, with nothing in between, computes what `model` computes, to the bit, gradients included.

    Args:
        model: a `timm.VisionTransformer` with a class token.
        split_point: l, the number of blocks on the client, 1 <= l < depth.

    Raises:
        UserError: if the model cannot be cut, or not there; the message names the reason.
    """
    check_cuttable(model)
    depth = len(model.blocks)
    if not 1 <= split_point < depth:
        raise UserError(
            f"model.split_point must be between 1 and {depth - 1} for a model of {depth} blocks, got {split_point}"
        )
    return ClientModel(model, split_point), ServerModel(model, split_point)


def check_cuttable(model: VisionTransformer) -> None:
    """Refuse, with the reason, whatever is not a plain ViT with a class token.

    Raises:
        UserError: naming what is missing.
    """
    name = type(model).__name__
    if type(model) is not VisionTransformer:
        raise UserError(f"model: {name} cannot be split; it must be a plain timm VisionTransformer such as deit_tiny")
    if model.cls_token is None:
        raise UserError("model: it has no class token, whose attention the compressors need")
    if not all(type(getattr(block, "attn", None)) is Attention for block in model.blocks):
        raise UserError("model: its blocks do not hold plain timm Attention layers, so it has no attention scores")
    if model.attn_pool is not None or model.global_pool != "token":
        raise UserError(f"model: it must classify from the class token, not by '{model.global_pool}' pooling")


DEIT = {"deit_tiny": "deit_tiny_patch16_224.fb_in1k", "deit_small": "deit_small_patch16_224.fb_in1k"}


def build(name: str, *, classes: int, image_size: int, pretrained: bool | str, seed: int) -> VisionTransformer:
    """Build a whole model, ready to be cut; its random parts depend on `seed` alone.

    Args:
        name: `vit_micro`, `deit_tiny`, `deit_small`, or the name of a timm model.
        classes: L; the head is new.
        image_size: side of the square input, pixels.
        pretrained: timm's weights from its Hub (`True`), none (`False`), or a weights file in timm's names.
        seed: of the initialisation.

    Raises:
        UserError: unknown name, unusable model or weights.
    """
    with torch.random.fork_rng(devices=[]):  # timm initialises from the global generator
        torch.manual_seed(derived_seed(seed, "init"))
        if name == "vit_micro":
            return _vit_micro(classes, image_size)
        _check_name(name)
        options: dict[str, object] = {"num_classes": classes, "img_size": image_size}
        if isinstance(pretrained, str):
            options["pretrained_cfg_overlay"] = {"file": str(Path(pretrained))}
        try:
            with _offline_if_unreachable() if pretrained is True else nullcontext(), _quiet():
                model = timm.create_model(DEIT.get(name, name), pretrained=bool(pretrained), **options)
        except Exception as error:
            if (reason := _explain(name, pretrained, error)) is None:
                raise
            raise UserError(reason) from error
    check_cuttable(model)
    _check_image_size(model, name, image_size)
    if isinstance(pretrained, str):
        _check_weights(model, name, pretrained)
    return model


def _check_name(name: str) -> None:
    """Refuse what timm does not know, before it looks on the Hub or on the disk."""
    base, _, tag = DEIT.get(name, name).partition(".")
    if not timm.is_model(base):
        hint = nearest(name, ["vit_micro", *DEIT, *timm.list_models()])
        raise UserError(f"model.name must be a model of timm, got {name!r}{hint}")
    if tag and f"{base}.{tag}" not in (tags := timm.list_pretrained(f"{base}.*")):
        raise UserError(f"model.name: timm has no weights {name!r}{nearest(name, tags)}")


def _check_image_size(model: VisionTransformer, name: str, image_size: int) -> None:
    """Refuse a size whose last pixels no patch would cover."""
    patch = max(model.patch_embed.patch_size)
    if image_size % patch or image_size < patch:
        below = max(1, image_size // patch) * patch
        raise UserError(
            f"model.image_size must be a multiple of {patch} for {name} (its patches), got {image_size}; "
            f"{below} and {below + patch} are the nearest"
        )


def _check_weights(model: VisionTransformer, name: str, path: str) -> None:
    """Refuse a file that leaves a part of the model without weights, the head apart: timm loads it all the same."""
    missing = set(model.state_dict()) - set(load_state_dict(path)) - set(model.head.state_dict(prefix="head."))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"model.pretrained: {path} does not fit {name}: it lacks {min(missing)}{more}")


def _vit_micro(classes: int, image_size: int) -> VisionTransformer:
    """Six narrow blocks over an 8 x 8 grid of patches (4 x 4 for images below 16 pixels)."""
    patch = max(1, image_size // (8 if image_size >= 16 else 4))
    return VisionTransformer(
        img_size=image_size, patch_size=patch, embed_dim=64, depth=6, num_heads=4, mlp_ratio=2.0,
        num_classes=classes, dynamic_img_pad=image_size % patch != 0,
    )  # fmt: skip


def _explain(name: str, pretrained: bool | str, error: Exception) -> str | None:
    """What the user can do about timm's refusal; None where nothing of the user's is behind it."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, TypeError):
        return f"model: {name} is not a Vision Transformer that timm can build for a given image size"
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
