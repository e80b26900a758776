"""Started in a folder that has packages and groups of the names of ours, flsplit finds its own, and the user's too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.command_line import SMALL

import flsplit

ROOT = Path(flsplit.__file__).parents[1]
RUN = "import sys; from flsplit.cli import main; sys.exit(main(sys.argv[1:]))"
# As an editable installation does it: a finder that comes last, and nothing on the path.
EDITABLE = f"""
import importlib.util, sys

class Last:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("flsplit", "compressors", "strategies", "experiments"):
            return importlib.util.spec_from_file_location(name, {str(ROOT)!r} + "/" + name + "/__init__.py")

sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")] + [Last]
{RUN}
"""
POOL = """
from compressors.topk import TopK

class Pool(TopK):
    "Of the user's own."
"""


@pytest.fixture
def own(here: Path) -> Path:
    """Holds folders of all names of ours, packages and others, and a plug-in with a group of its own."""
    for name in ("compressors", "strategies", "experiments", "conf", "tests"):
        (here / name).mkdir()
    (here / "compressors" / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    (here / "strategies" / "splitfed_v1.py").write_text("raise RuntimeError('not this one')\n")
    (here / "conf" / "config.yaml").write_text("something: else\n")
    (here / "conf" / "compressor").mkdir()
    (here / "conf" / "compressor" / "mine.yaml").write_text("name: mine.pool\nrate: 0.5\n")
    (here / "mine").mkdir()
    (here / "mine" / "pool.py").write_text(POOL)
    return here


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel puts into `site-packages`."""
    pytest.importorskip("setuptools", minversion="77", reason="older ones do not read pyproject.toml as it is")
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


def start(folder: Path, code: list[str], *keys: str, path: Path | None, out: str = "run") -> None:
    """Run something small, and see that it has run to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *code, *SMALL[:-1], *keys, "out=run"], cwd=folder, env=environment, capture_output=True,
        text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    clients = pd.read_parquet(folder / out / "clients.parquet")
    assert clients["round"].tolist() == [1, 1, 2, 2] and not clients.failed.any()


OF_THE_USERS = ["--config-dir", "conf", "compressor=mine"]


@pytest.mark.slow
def test_a_checkout_finds_its_own(own: Path) -> None:
    start(own, ["-m", "flsplit.cli"], "engine=inline", "-m", "seed=1,2", path=ROOT, out="run/1")


@pytest.mark.slow
def test_an_installation_finds_its_own_and_the_users_plugins(own: Path, installed: Path) -> None:
    start(own, ["-P", "-c", RUN], *OF_THE_USERS, "engine=inline", path=installed)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_so_do_processes_of_ray(own: Path) -> None:
    """It puts the folder at hand first on their path."""
    start(own, ["-P", "-c", EDITABLE], *OF_THE_USERS, "strategy=splitfed_v2", "engine=ray", path=None)


def test_an_installation_puts_nothing_but_its_packages_beside_those_of_others(installed: Path) -> None:
    assert sorted(path.name for path in installed.iterdir()) == ["compressors", "experiments", "flsplit", "strategies"]
    ours = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert {path.relative_to(installed / "flsplit/conf") for path in installed.rglob("*.yaml")} == ours
    modules = {path for folder in installed.iterdir() for path in (ROOT / folder.name).rglob("*.py")}
    assert {path.relative_to(ROOT) for path in modules} <= {p.relative_to(installed) for p in installed.rglob("*.py")}
