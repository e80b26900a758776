"""What the packages import is what `pip install` brings."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

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
