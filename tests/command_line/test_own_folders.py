"""Started in a folder that has packages and groups of the names of ours, flsplit finds its own, and the user's too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
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
    """A fresh environment with flsplit's wheel in it; what else it needs is found where it is found here."""
    pytest.importorskip("setuptools", minversion="77", reason="older ones do not read pyproject.toml as it is")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("fresh")
    for name in ("compressors", "conf", "experiments", "flsplit", "strategies", "tests"):  # no build/ of another day
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    quietly([*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(source)])
    quietly([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    [wheel] = folder.glob("flsplit-*.whl")
    quietly([*pip, "--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel)])
    [packages] = folder.glob("lib/*/site-packages")
    (packages / "others.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return folder


def quietly(command: list[str], folder: Path | None = None) -> str:
    """Run a command that must do well; what it has shown."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(folder: Path, program: list[str], *keys: str, path: Path | None = None, out: str = "run") -> None:
    """Run something small, and see that it has run to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [*program, *SMALL[:-1], *keys, "out=run"], cwd=folder, env=environment, capture_output=True,
        text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    clients = pd.read_parquet(folder / out / "clients.parquet")
    assert clients["round"].tolist() == [1, 1, 2, 2] and not clients.failed.any()


OF_THE_USERS = ["--config-dir", "conf", "compressor=mine"]


@pytest.mark.slow
def test_a_checkout_finds_its_own(own: Path) -> None:
    start(own, [sys.executable, "-m", "flsplit.cli"], "engine=inline", "-m", "seed=1,2", path=ROOT, out="run/1")


@pytest.mark.slow
def test_an_installation_finds_its_own_and_the_users_plugins(own: Path, installed: Path) -> None:
    start(own, [str(installed / "bin" / "flsplit")], *OF_THE_USERS, "engine=inline")


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_so_do_processes_of_ray(own: Path) -> None:
    """It puts the folder at hand first on their path."""
    start(own, [sys.executable, "-P", "-c", EDITABLE], *OF_THE_USERS, "strategy=splitfed_v2", "engine=ray")


@pytest.mark.slow
def test_the_commands_of_an_installation_work_in_an_empty_folder(here: Path, installed: Path) -> None:
    program = installed / "bin"
    where = quietly([str(program / "python"), "-c", "import flsplit; print(flsplit.__file__)"], here)
    assert Path(where.strip()).is_relative_to(installed)
    assert all(
        (Path(where).parents[1] / name / "py.typed").is_file() for name in ("flsplit", "strategies", "compressors")
    )
    keys = ["engine=inline", "rounds=1", "clients=2", "dataset.train_limit=50", "dataset.test_limit=20", "out=run"]
    assert "test accuracy" in quietly([str(program / "flsplit"), *keys], here)
    assert quietly([str(program / "flsplit-report"), "run"], here) == "wrote report.html\n"
    assert quietly([str(program / "flsplit-plot"), "run", "--out", "a.svg"], here).endswith("wrote a.svg\n")
    assert sorted(path.name for path in here.iterdir()) == ["a.svg", "report.html", "run"]


@pytest.mark.slow
def test_an_installation_puts_nothing_but_its_packages_beside_those_of_others(installed: Path) -> None:
    [packages] = installed.glob("lib/*/site-packages")
    there = [path for path in packages.iterdir() if path.is_dir() and path.suffix != ".dist-info"]
    assert sorted(path.name for path in there) == ["compressors", "experiments", "flsplit", "strategies"]
    ours = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert {path.relative_to(packages / "flsplit/conf") for path in packages.rglob("*.yaml")} == ours
    modules = {path for folder in there for path in (ROOT / folder.name).rglob("*.py")}
    assert {path.relative_to(ROOT) for path in modules} <= {p.relative_to(packages) for p in packages.rglob("*.py")}
