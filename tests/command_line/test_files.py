"""Folders and files that cannot be used: one line that names them, code 2, nothing written."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers.command_line import SMALL, Accepted, Refused, contents, one_line
from PIL import Image
from safetensors.torch import save_file

from flsplit import cli

# A folder that cannot be the run's


@pytest.mark.slow
def test_out_holds_a_run(refused: Refused, a_run: Path) -> None:
    line = refused(f"out={a_run}")
    assert f"out={a_run} already holds a run" in line
    assert f"resume={a_run}" in line


@pytest.mark.slow
def test_out_holds_something_or_is_a_file(refused: Refused, here: Path) -> None:
    (here / "notes").mkdir()
    (here / "notes" / "a.txt").write_text("mine")
    assert "out=notes already holds something" in refused("out=notes")
    assert "out=notes/a.txt is a file" in refused("out=notes/a.txt")
    assert "out=notes/a.txt/run cannot be made" in refused("out=notes/a.txt/run")
    assert "out=notes/a.txt/0 cannot be made" in refused("-m", "seed=1,2", "out=notes/a.txt")
    assert "cannot be made" in refused(f"out={'x' * 300}")


def test_out_is_not_writable(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "is not writable" in refused("out=a")
    assert "is not writable" in refused()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which not even root can write")
def test_out_turns_out_not_to_be_writable(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SMALL, "out=/proc/run"]) == 2
    assert "out=/proc/run cannot be made" in one_line(capsys.readouterr().err)
    assert cli.main([*SMALL, "hydra.run.dir=/proc/run"]) == 2
    assert "hydra.run.dir" in one_line(capsys.readouterr().err)
    assert contents(here) == {}


# Files that are not what they should be


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "some images"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / split / name / "0.png")
    return folder


def typed_path(images: Path) -> list[str]:
    return ["dataset=folder", f'dataset.path="{images}"', "clients=2"]


@pytest.mark.slow
def test_a_folder_of_images(refused: Refused, images: Path, accepted: Accepted) -> None:
    assert len(accepted(*typed_path(images))) == 1
    (images / "train" / "cat" / "1.png").write_bytes(b"not an image")
    assert "1.png cannot be read as an image (of no known format)" in refused(*typed_path(images))


@pytest.mark.slow
def test_images_that_cannot_be_used(refused: Refused, images: Path) -> None:
    link = images / "train" / "cat" / "2.png"
    link.symlink_to("/nowhere/at/all")
    assert "dataset.path: No such file or directory" in refused(*typed_path(images))
    link.unlink()
    (images / "test" / "cow").mkdir()
    (images / "test" / "cow" / "0.png").write_bytes((images / "test" / "dog" / "0.png").read_bytes())
    assert "'cow'" in refused(*typed_path(images))
    shutil.rmtree(images / "test")
    assert "test/CLASS/*" in refused(*typed_path(images))
    (images / "train" / "cat" / "0.png").unlink()
    (images / "train" / "dog" / "0.png").unlink()
    (images / "test" / "dog").mkdir(parents=True)
    assert "no images" in refused(*typed_path(images))


@pytest.mark.some
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.safetensors", b"{}"), ("a.pth", b"\x80\x04nothing"), ("a.pth", b""), ("a.pth", b"PK\x03\x04")],
)
def test_a_file_without_weights(refused: Refused, here: Path, name: str, content: bytes) -> None:
    (here / name).write_bytes(content)
    line = refused("model=deit_tiny", "model.image_size=32", f"model.pretrained={name}")
    assert f"model.pretrained: {name} is not a weights file" in line


@pytest.mark.slow
def test_the_weights_of_another_model(refused: Refused, here: Path) -> None:
    save_file({"cls_token": torch.zeros(1, 1, 192)}, here / "few.safetensors")
    save_file({"cls_token": torch.zeros(1, 1, 384)}, here / "other.safetensors")
    arguments = ("model=deit_tiny", "model.image_size=32")
    assert "it lacks blocks.0" in refused(*arguments, "model.pretrained=few.safetensors")
    assert "other.safetensors does not fit deit_tiny: it lacks blocks.0.attn.proj.bias" in refused(
        *arguments, "model.pretrained=other.safetensors"
    )
