"""What does not exist, but for a name like it: the line says which."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command_line import Accepted, Refused

from flsplit.errors import nearest_path


@pytest.mark.parametrize(
    "keys", [["dataset=folder", "dataset.path=photo"], ["resume=photo"], ["--config-dir", "photo"]], ids=str
)
def test_a_folder_with_a_name_like_it_is_named(keys: list[str], here: Path, refused: Refused) -> None:
    (here / "photos").mkdir()
    assert refused(*keys).endswith("; did you mean photos?")


def test_only_what_is_there_is_named(here: Path) -> None:
    (here / "runs" / "first").mkdir(parents=True)
    assert nearest_path("runs/frst") == "; did you mean runs/first?"
    assert nearest_path("rus/first") == "; did you mean runs/first?"
    assert nearest_path("rus/other") == "; did you mean runs?"
    assert nearest_path("runs/first") == nearest_path("elsewhere/first") == ""


@pytest.mark.parametrize("more", [["compressor=mine"], ["--help", "compressor"]], ids=str)
def test_a_folder_without_groups_is_told_with_the_one_that_has_them(
    more: list[str], here: Path, refused: Refused
) -> None:
    (here / "own" / "conf" / "compressor").mkdir(parents=True)
    said = "--config-dir own: there is no GROUP/NAME.yaml, such as compressor/mine.yaml"
    assert refused("--config-dir", "own", *more).endswith(said)
    (here / "own" / "conf" / "compressor" / "mine.yaml").write_text("name: base\n")
    assert refused("--config-dir", "own", *more).endswith(f"{said}; did you mean own/conf?")


def test_a_folder_with_launchers_alone_has_groups(here: Path, accepted: Accepted) -> None:
    (here / "own" / "hydra" / "launcher").mkdir(parents=True)
    (here / "own" / "hydra" / "launcher" / "mine.yaml").write_text("{}\n")
    assert accepted("--config-dir", "own")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lone", "a module of your own lies in a folder: put lone.py into one, such as mine, and give mine.lone"),
        ("lone.Mine", "a module of your own lies in a folder: put lone.py into one, such as mine, and give mine.lone"),
        ("own_of_here.whole.Mine", "give the module of the class, own_of_here.whole"),
        ("own_of_here.whol", "no module 'own_of_here.whol' (did you mean 'own_of_here.whole'?)"),
    ],
)
def test_a_plugin_is_named_by_its_module(name: str, said: str, here: Path, refused: Refused) -> None:
    code = "from compressors.base import Base\n\nclass Mine(Base):\n    pass\n"
    for file in ("conf/compressor/mine.yaml", "own_of_here/whole.py", "lone.py"):
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text(code if file.endswith(".py") else f"name: {name}\n")
    assert refused("--config-dir", "conf", "compressor=mine").endswith(said)
