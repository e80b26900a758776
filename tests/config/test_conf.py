"""The YAML files and the code they configure agree, and packages depend on each other one way only."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import compressors
import strategies
from flsplit.compose import compose
from flsplit.data.partitions import interface

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
MAY_USE = {
    "compressors": {"compressors"},
    "flsplit": {"compressors", "flsplit"},
    "strategies": {"compressors", "flsplit", "strategies"},
    "experiments": {"compressors", "flsplit", "strategies", "experiments"},
}


@pytest.mark.parametrize(
    ("group", "package"), [("compressor", compressors), ("strategy", strategies), ("partition", interface)]
)
def test_every_method_has_a_yaml_with_all_its_options_and_their_defaults(group: str, package: object) -> None:
    names = {path.stem for path in (CONF / group).glob("*.yaml")}
    assert names == set(package.available())  # type: ignore[attr-defined]
    for name in names:
        loaded = OmegaConf.load(CONF / group / f"{name}.yaml")
        values = {str(key): "given" if OmegaConf.is_missing(loaded, key) else loaded[key] for key in loaded}
        assert values.pop("name") == name
        built = package.build(name, **values)  # type: ignore[attr-defined]
        keywords: dict[str, object] = {}
        for kind in type(built).__mro__[:-1]:
            if "__init__" in vars(kind):
                parameters = list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:]
                keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} | keywords
                if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                    break  # it takes no options of its base
        assert values.keys() == keywords.keys(), name
        for key, default in keywords.items():
            if default is inspect.Parameter.empty:
                assert values[key] == "given"
            elif key not in ("placement", "aggregator_args"):  # None stands for what the YAML spells out
                assert values[key] == default, (name, key)


@pytest.mark.some
@pytest.mark.parametrize("group", ["compressor", "strategy", "partition", "engine", "dataset", "model"])
def test_every_choice_of_every_group_composes(group: str) -> None:
    for path in (CONF / group).glob("*.yaml"):
        keys = [f"{group}={path.stem}"]
        if group == "dataset" and path.stem != "digits":
            keys.append(f"dataset.path={ROOT}")
            continue  # their files are checked where they are read (tests/data)
        if path.stem == "column":
            continue  # no data set that comes with us has further columns (tests/data)
        if group == "model" and path.stem != "vit_micro":
            keys += ["model.pretrained=false", *(["model.name=vit_tiny_patch16_224"] if path.stem == "timm" else [])]
        config = compose(keys).as_dict()
        assert config["model"]["name"] == "vit_tiny_patch16_224" or config[group]["name"] == path.stem


@pytest.mark.parametrize("package", MAY_USE)
def test_dependencies_point_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used = {name.partition(".")[0] for name in names} & MAY_USE.keys()
            assert used <= MAY_USE[package], f"{path.relative_to(ROOT)} imports {used - MAY_USE[package]}"
