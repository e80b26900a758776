"""The README's examples, run as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROOMS = ("compressors", "strategies", "flsplit", "conf", "experiments")
PAGES = sorted(page for room in ROOMS for page in (ROOT / room).glob("**/*.md"))
SMALL = ["engine=inline", "clients=3", "rounds=2", "dataset.train_limit=100", "dataset.test_limit=40", "out=run"]


def blocks(page: Path) -> dict[str, str]:
    """The files that a page shows, by the path in their first line."""
    return dict(re.findall(r"```(?:python|yaml)\n# (mine/\S+)\n(.*?)```", page.read_text(), re.DOTALL))


def name(page: Path) -> str:
    """A page's path, of a room's first page the room's."""
    return str(page.relative_to(ROOT).with_suffix("")).removesuffix("/README")


WITH_EXAMPLES = [page for page in PAGES if blocks(page)]


def test_each_door_has_a_page_with_a_short_example() -> None:
    assert {name(page) for page in WITH_EXAMPLES} == {
        "compressors", "compressors/stages", "strategies", "flsplit/split/tuning", "flsplit/split/families",
        "flsplit/data/partitions", "flsplit/metrics",
    }  # fmt: skip
    assert max(len(text.splitlines()) for page in WITH_EXAMPLES for text in blocks(page).values()) <= 45


@pytest.mark.slow
@pytest.mark.some
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name)
def test_an_example_runs_by_the_command_below_it(page: Path, tmp_path: Path) -> None:
    for path, text in blocks(page).items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    [command] = re.findall(r"```bash\nflsplit (.*)\n```", page.read_text())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flsplit.cli", *shlex.split(command), *SMALL], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rounds = pd.read_parquet(tmp_path / "run" / "rounds.parquet")
    clients = pd.read_parquet(tmp_path / "run" / "clients.parquet")
    assert len(rounds) == 2 and rounds.train_loss.notna().all() and not clients.failed.any()
    if name(page) == "compressors":
        assert rounds.xi.iloc[-1] == pytest.approx(5 / 17, abs=1e-3)  # CLS and 4 means of 4 instead of 17 tokens
    if name(page) == "flsplit/data/partitions":
        parts = pd.read_parquet(tmp_path / "run" / "partition.parquet").groupby("client")["count"].sum()
        assert parts.tolist() == [60, 24, 16]
    if name(page) == "flsplit/metrics":
        assert rounds.test_confidence.between(0.1, 1).all()


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_the_keys_that_the_readme_lists_exist() -> None:
    from flsplit.compose import compose

    config = compose([])
    for key, value in re.findall(r"`(clients|rounds|local_epochs|batch_size|eval_every|seed)` (\d+)", README):
        assert getattr(config, key) == int(value)


def test_what_is_cited_is_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
