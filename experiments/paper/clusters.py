"""Figure 8: images that ADC merges, and where the client-side model looks in them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from compressors.adc import ADC
from experiments.folder import check_same
from experiments.point import Point
from experiments.runner import Place
from flsplit.assembly import Assembly
from flsplit.errors import UserError
from flsplit.experiment import trained
from flsplit.report.style import figure
from flsplit.split.side import Side
from flsplit.streams import torch_stream

SHOWN = 6  # images of a cluster


def fig8(points: Sequence[Point], place: Place, path: Path) -> None:
    """Draw the largest cluster of one batch for each point: images above, attention rollout below.

    Raises:
        UserError: if a run's folder, with its trained model, is not there or holds a run with other settings.
    """
    with figure(1.6 * SHOWN, 3.9 * len(points)) as drawing:
        parts = drawing.subfigures(len(points), 1, squeeze=False)[:, 0]
        for part, point in zip(parts, points):
            images, heat, kept = cluster(*_trained(point, place))
            part.suptitle(f"xi = {point.value:g}: a cluster of {len(images)}, {kept} tokens kept")
            rows = part.subplots(2, SHOWN)
            for axes in rows.flat:
                axes.set_axis_off()
            for column, (image, attention) in enumerate(zip(images[:SHOWN], heat[:SHOWN])):
                _show(rows[0, column], image)
                _show(rows[1, column], image, attention)
        drawing.savefig(path, dpi=130)


def _trained(point: Point, place: Place) -> tuple[Assembly, Side]:
    """A finished run: its assembly, and a client side with the model that it ended with.

    Raises:
        UserError: if its folder is not there, or holds a run with other settings.
    """
    folder = place.runs / point.slug
    if not (folder / "checkpoint").is_dir():
        raise UserError(f"fig8 needs the trained model of {point.slug}, but {folder} holds no finished run")
    check_same(folder, place.keys(point))
    assembly, side, _ = trained(folder)
    return assembly, side


@torch.no_grad()
def cluster(assembly: Assembly, side: Side) -> tuple[np.ndarray, np.ndarray, int]:
    """The largest cluster of one batch of training images, which are not augmented.

    Returns:
        images: (M, S, S, 3) in 0..1.
        heat: (M, S, S), rollout at the tokens that the cluster keeps, 0 elsewhere; the largest of an image is 1.
        kept: how many they are, the class token included.
    """
    adc, config, table = side.stages.compressor, assembly.config, assembly.dataset.train
    assert isinstance(adc, ADC), "Figure 8 is about ADC"
    model = side.model
    rows = np.random.default_rng(config.seed).permutation(len(table))[: config.batch_size]
    images, labels = next(assembly.pipeline.eval_batches(table, rows, config.batch_size))
    z, scores = model(images)
    payload = adc.compress(z, labels, scores, generator=torch_stream(config.seed, "figure 8"))
    clusters = payload.integers[0]
    members = clusters == clusters.bincount().argmax()
    kept = adc.kept_tokens(z.shape[1])
    chosen = 1 + scores[members].mean(0)[1:].sort(descending=True, stable=True).indices[: kept - 1]
    rolled = rollout(model.vit, images[members])
    heat = torch.zeros_like(rolled).index_copy(1, chosen, rolled[:, chosen])[:, 1:]
    patches = int(heat.shape[1] ** 0.5)
    maps = F.interpolate(heat.view(-1, 1, patches, patches), size=images.shape[-1], mode="bilinear")[:, 0]
    maps = maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    pixels = (images[members] * assembly.pipeline.std + assembly.pipeline.mean).clamp(0, 1)
    return pixels.permute(0, 2, 3, 1).cpu().numpy(), maps.cpu().numpy(), kept


@torch.no_grad()
def rollout(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928) through the blocks of `vit`.

    In every block, attention (mean over heads) and the identity, half each, stand for how tokens are mixed; the
    blocks' matrices are multiplied.

    Args:
        vit: a timm ViT, or the first blocks of one.
        images: (B, 3, S, S).

    Returns:
        (B, N): how much of each token reaches the class token; every row sums to 1.
    """
    maps: list[Tensor] = []
    hooks = [block.attn.qkv.register_forward_hook(partial(_keep_map, maps, block.attn)) for block in vit.blocks]
    try:
        vit.forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    same = torch.eye(maps[0].shape[-1], device=images.device)
    rolled = same.expand_as(maps[0])
    for attention in maps:
        rolled = (attention + same) / 2 @ rolled
    return rolled[:, 0]


def _keep_map(maps: list[Tensor], attention: Attention, module: nn.Module, args: object, qkv: Tensor) -> None:
    batch, tokens, _ = qkv.shape
    q, k, _ = qkv.reshape(batch, tokens, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q), attention.k_norm(k)
    maps.append((q @ k.transpose(-2, -1) * attention.scale).softmax(-1).mean(1))


def _show(axes: Axes, image: np.ndarray, heat: np.ndarray | None = None) -> None:
    axes.imshow(image)
    if heat is not None:
        axes.imshow(heat, cmap="jet", alpha=0.45, vmin=0, vmax=1)
