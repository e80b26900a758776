"""What the packages import is what `pip install` brings."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("flsplit", "compressors", "strategies", "experiments", "conf")
WITH_TORCH = {"triton"}  # imported where there is a GPU, with torch's build for one


def imports(tree: ast.AST, *, later: bool = False) -> Iterator[tuple[str, bool]]:
    """Top-level names of modules, and whether they are imported only when something is called."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name.partition(".")[0], later) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], later
        yield from imports(node, later=later or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def named(requirements: list[str]) -> set[str]:
    """The distributions of requirements, in one spelling."""
    return {re.split(r"[<>=\[ ]", text)[0].lower().replace("_", "-") for text in requirements}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed, extras = named(project["dependencies"]), project["optional-dependencies"]
    optional = named([text for name, texts in extras.items() if name != "dev" for text in texts])
    found = {
        pair
        for package in OURS
        for file in (ROOT / package).rglob("*.py")
        for pair in imports(ast.parse(file.read_text()))
        if pair[0] not in {*sys.stdlib_module_names, *OURS, *WITH_TORCH}
    }
    brought = packages_distributions()
    at_once = named([brought[name][0] for name, later in found if not later])
    assert at_once - needed == set()
    at_all = named([brought[name][0] for name, _ in found])
    assert at_all - needed - optional == {"optuna"}  # which the sweeper for it brings
    assert needed - at_all == set()


def test_tests_have_what_every_extra_brings() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named_otherwise = {"flower"}  # its Ray is held to a version of its own
    for name in extras.keys() - {"dev"} - named_otherwise:
        assert set(extras[name]) <= set(extras["dev"]), name


def stub_index(folder: Path, wheels: dict[str, tuple[str, ...]]) -> str:
    """The address of an index with empty wheels of these versions."""
    for name, versions in wheels.items():
        (folder / name).mkdir(parents=True)
        for version in versions:
            info = f"{name}-{version}.dist-info"
            with zipfile.ZipFile(folder / name / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
                wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                wheel.writestr(f"{info}/RECORD", "")
        links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in (folder / name).iterdir())
        (folder / name / "index.html").write_text(links)
    return folder.as_uri()


@pytest.mark.slow
@pytest.mark.parametrize("newest", [False, True])
def test_the_cpu_build_that_the_readme_takes_is_kept_by_make(newest: bool, tmp_path: Path) -> None:
    tested = dict(re.findall(r"^(torch|torchvision)==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    url = stub_index(tmp_path, {name: (f"{version}+cpu", "99.0+cpu") for name, version in tested.items()})
    readme = (ROOT / "README.md").read_text()
    [line] = re.findall(r"`\.venv/bin/pip (install torch.*?) --index-url \S+/whl/cpu`", readme)
    if newest:  # which would not do
        line = re.sub(r"==[\d.]+", "", line)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv" / "bin" / "pip", "--isolated", "--disable-pip-version-check"]
    subprocess.run([*pip, *shlex.split(line), "--quiet", "--index-url", url], check=True)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = [text for text in needed if text.startswith("torch")]
    held = subprocess.run([*pip, "install", "--no-index", "-c", ROOT / "constraints.txt", *asked], capture_output=True)
    assert (held.returncode == 0) == (not newest), held.stderr
