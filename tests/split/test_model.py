"""Cutting a timm ViT: nothing is lost, nothing is shared, and what cannot be cut is refused."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from flsplit.split.model import build, cut


def small(**options: object) -> VisionTransformer:
    settings = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 3, "num_classes": 5}
    torch.manual_seed(0)
    return VisionTransformer(**{**settings, **options})


MODELS = {
    "micro": lambda: build("vit_micro", classes=10, image_size=8, pretrained=False, seed=1),
    "deit_tiny": lambda: build("deit_tiny", classes=7, image_size=32, pretrained=False, seed=1),
    "registers": lambda: small(reg_tokens=2),
    "qk_norm": lambda: small(qk_norm=True, init_values=1e-2),
    "pre_norm": lambda: small(pre_norm=True, no_embed_class=True),
}
WITHOUT_SCORES = {
    "no_class_token": lambda: small(class_token=False, global_pool="avg"),
    "average": lambda: small(global_pool="avg"),
    "attention_pool": lambda: small(class_token=False, global_pool="map"),
}


@pytest.mark.some
@pytest.mark.parametrize("name", [*MODELS, *WITHOUT_SCORES])
@pytest.mark.parametrize("split_point", [1, 3])
def test_client_then_server_is_the_uncut_model_to_the_bit(name: str, split_point: int) -> None:
    model = {**MODELS, **WITHOUT_SCORES}[name]()
    images = torch.randn(3, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(2))
    client, server = cut(model, split_point)
    whole = model(images)
    z, _ = client(images)
    parts = server(z)
    assert torch.equal(whole, parts)

    whole.square().mean().backward()
    parts.square().mean().backward()
    expected = {k: p.grad for k, p in model.named_parameters()}
    found = {k.removeprefix("vit."): p.grad for part in (client, server) for k, p in part.named_parameters()}
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        assert torch.equal(found[key], gradient), key


def test_the_parts_share_no_memory_with_each_other_or_the_model() -> None:
    model = MODELS["micro"]()
    client, server = cut(model, 3)
    pointers = [{p.data_ptr() for p in m.parameters()} for m in (model, client, server)]
    assert not pointers[0] & pointers[1] and not pointers[0] & pointers[2] and not pointers[1] & pointers[2]


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_class_tokens_row_of_the_full_attention_map(name: str) -> None:
    model = MODELS[name]()
    images = torch.randn(4, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(3))
    client, _ = cut(model, 2)
    z, scores = client(images)

    block = model.blocks[1]  # the last one on the client, worked out in full
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    x = block.norm1(model.blocks[0](x))
    batch, tokens, width = x.shape
    heads = block.attn.num_heads
    q, k, _ = block.attn.qkv(x).view(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    q, k = block.attn.q_norm(q), block.attn.k_norm(k)
    full = ((q @ k.transpose(-2, -1)) * (width // heads) ** -0.5).softmax(-1)  # (B, H, N, N)
    torch.testing.assert_close(scores, full.mean(1)[:, 0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(scores.sum(1), torch.ones(4))
    assert scores.shape == z.shape[:2] and not scores.requires_grad and z.requires_grad


@pytest.mark.parametrize("name", WITHOUT_SCORES)
def test_there_are_scores_only_where_the_class_token_classifies(name: str) -> None:
    client, _ = cut(WITHOUT_SCORES[name](), 2)
    assert not client.has_scores
    assert client(torch.zeros(2, 3, 16, 16))[1] is None
    assert client.prefix_tokens == (1 if name == "average" else 0)


def test_scores_can_be_left_out() -> None:
    client, _ = cut(MODELS["micro"](), 3)
    client.with_scores = False
    assert client(torch.zeros(2, 3, 8, 8))[1] is None


@pytest.mark.parametrize("split_point", [0, 4, -1])
def test_a_split_point_outside_the_model_is_refused(split_point: int) -> None:
    with pytest.raises(ValueError, match=rf"^model.split_point must be between 1 and 3 .* got {split_point}$"):
        cut(small(), split_point)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224"), "plain timm VisionTransformer"),
        (lambda: timm.create_model("resnet18"), "plain timm VisionTransformer"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(model: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cut(model(), 1)  # type: ignore[operator]


@pytest.mark.parametrize("size", [4, 9, 17, 28, 32, 50, 101])
def test_vit_micro_takes_images_of_any_size(size: int) -> None:
    model = build("vit_micro", classes=4, image_size=size, pretrained=False, seed=0).eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    client, server = cut(model, 3)
    z, scores = client(images)
    assert z.shape[1] == scores.shape[1] == model.pos_embed.shape[1] and torch.equal(server(z), model(images))


def test_initialisation_depends_on_the_seed_alone_and_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (build("vit_micro", classes=4, image_size=8, pretrained=False, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.pos_embed, c.pos_embed)


def test_pretrained_weights_from_a_file(deit_tiny_weights: object) -> None:
    from safetensors.torch import load_file

    model = build("deit_tiny", classes=9, image_size=96, pretrained=str(deit_tiny_weights), seed=0)
    saved = load_file(str(deit_tiny_weights))
    assert torch.equal(model.blocks[5].mlp.fc1.weight, saved["blocks.5.mlp.fc1.weight"])
    assert model.head.out_features == 9 and model.pos_embed.shape[1] == 1 + 6 * 6


def test_weights_that_do_not_fit_are_refused(tmp_path: object) -> None:
    from safetensors.torch import save_file

    path = f"{tmp_path}/other.safetensors"
    save_file({"something": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"^model\.pretrained: .*other\.safetensors (into|does not fit) deit_tiny"):
        build("deit_tiny", classes=9, image_size=32, pretrained=path, seed=0)
