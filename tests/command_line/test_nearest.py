"""What does not exist, but for a name like it: the line says which."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command_line import Refused

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
