"""Weights files of other models are refused in one line; what is done with those that fit is said."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flsplit.assembly import assembly_for
from flsplit.compose import compose
from flsplit.errors import UserError
from flsplit.experiment import prepare
from flsplit.split.families import weights
from flsplit.split.model import build

State = dict[str, Tensor]
KEYS = ["model=deit_tiny", "model.image_size=32", "dataset.train_limit=40", "dataset.test_limit=10", "engine=inline"]


@pytest.fixture(scope="module")
def state() -> State:
    """The weights of a DeiT-Tiny of 7 classes at 48 px."""
    return build("deit_tiny", classes=7, image_size=48, pretrained=False, seed=3).state_dict()


def deeper(state: State) -> State:
    more = {key.replace("blocks.0.", "blocks.12."): value.clone() for key, value in state.items() if ".0." in key[:9]}
    return {**state, **more}


def with_layer_scale(state: State) -> State:
    return {**state, **{f"blocks.{n}.ls1.gamma": torch.ones(192) for n in range(12)}}


def with_norms(state: State) -> State:
    return {**state, **{f"blocks.{n}.attn.q_norm.weight": torch.ones(64) for n in range(12)}}


def other_patches(state: State) -> State:
    return {**state, "patch_embed.proj.weight": torch.zeros(192, 3, 8, 8)}


def lacking(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith("blocks.11.")}


def with_nan(state: State) -> State:
    return {**state, "norm.bias": torch.full((192,), torch.nan)}


def with_codes(state: State) -> State:
    return {**state, "blocks.0.mlp.fc1.weight": state["blocks.0.mlp.fc1.weight"].mul(100).to(torch.int8)}


@pytest.mark.some
@pytest.mark.parametrize("classes", [7, 10])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (deeper, "it has blocks.12.attn.proj.bias and 11 more, which the model has not"),
        (with_layer_scale, "it has blocks.0.ls1.gamma and 11 more, which the model has not"),
        (with_norms, "it has blocks.0.attn.q_norm.weight and 11 more, which the model has not"),
        (other_patches, "patch_embed.proj.weight is (192, 3, 8, 8), in the model (192, 3, 16, 16)"),
        (lacking, "it lacks blocks.11.attn.proj.bias and 11 more"),
        (with_codes, "blocks.0.mlp.fc1.weight is torch.int8, codes of a quantiser perhaps, not weights"),
        (with_nan, "holds numbers that are not finite, in norm.bias"),
    ],
)
def test_another_models_weights_are_refused(
    spoil: Callable[[State], State], says: str, classes: int, state: State, tmp_path: Path
) -> None:
    path = str(tmp_path / "some.safetensors")
    save_file({key: value.contiguous() for key, value in spoil(state).items()}, path)
    with pytest.raises(UserError) as refused:
        build("deit_tiny", classes=classes, image_size=32, pretrained=path, seed=0)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"model.pretrained: {path}")


@pytest.mark.some
@pytest.mark.parametrize("classes", [7, 1000])
def test_all_that_fits_is_taken_the_head_as_well(classes: int, state: State, tmp_path: Path) -> None:
    path = str(tmp_path / "own.safetensors")
    head = {"head.weight": torch.randn(classes, 192), "head.bias": torch.randn(classes)}
    given = {**state, **head} if classes == 1000 else state
    save_file({key: value.half() if value.ndim > 1 else value for key, value in given.items()}, path)
    model = build("deit_tiny", classes=classes, image_size=48, pretrained=path, seed=0)
    for key, value in model.state_dict().items():
        assert torch.equal(value, given[key].half().float() if value.ndim > 1 else given[key]), key
    assert weights.said(model, path) == [f"model.pretrained={path}: the head is that of the file"]
    save_file({key: value for key, value in state.items() if "head" not in key}, path)
    model = build("deit_tiny", classes=classes, image_size=48, pretrained=path, seed=0)
    assert weights.said(model, path) == [f"model.pretrained={path}: the head is new"]


@pytest.mark.slow
def test_what_is_done_with_a_file_is_said(state: State, tmp_path: Path) -> None:
    path = str(tmp_path / "checkpoint.pth")
    torch.save({"epoch": 3, "model": {f"module.{key}": value for key, value in state.items()}}, path)
    notes = prepare(compose([*KEYS, f"model.pretrained={path}", f"out={tmp_path / 'run'}"])).notes
    assert notes == [
        f"model.pretrained={path}: {note}"
        for note in (
            "the weights are those under 'model'",
            "the prefix of a wrapper (module., _orig_mod.) is taken off their names",
            "the head is new",
            "pos_embed is resampled from 10 to 5 tokens",
        )
    ]
    model = build("deit_tiny", classes=10, image_size=32, pretrained=path, seed=0)
    assert torch.equal(model.state_dict()["blocks.3.mlp.fc1.weight"], state["blocks.3.mlp.fc1.weight"])


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.some
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_refused_and_never_run(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bomb.pth").write_bytes(pickle.dumps({"model": Bomb()}, protocol))
    torch.save({"model": Bomb()}, "bomb.pt")
    for name in ("bomb.pth", "bomb.pt"):
        with pytest.raises(UserError, match=rf"model\.pretrained: {name} is not a weights file"):
            build("deit_tiny", classes=10, image_size=32, pretrained=name, seed=0)
    assert not Path("exploded").exists()


def test_weights_that_were_replaced_in_between_are_the_new_ones(state: State, tmp_path: Path) -> None:
    """Also where a process has prepared the same keys before."""
    path = tmp_path / "weights.safetensors"
    keys = [*KEYS, f"model.pretrained={path}", f"out={tmp_path / 'run'}"]
    found = []
    for number in range(2):
        save_file({**state, "cls_token": torch.full_like(state["cls_token"], float(number))}, path)
        assembly = assembly_for(prepare(compose(keys)).plan.to_json())
        found.append(float(assembly.parts[0].state_dict()["vit.cls_token"].mean()))
    assert found == [0.0, 1.0]
