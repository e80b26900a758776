"""From names and options to compressors, and the lines that users read when these are wrong."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import compressors
from compressors import Compressor, available, build

PLUGIN = '''
from compressors.base import Base


class Mine(Base):
    """A method of a user's own."""

    def __init__(self, *, strength: int, label: str | None = None, other: list[int] | None = None) -> None:
        super().__init__()
        self.strength, self.label = strength, label
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    package = tmp_path / "plugin_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mine.py").write_text(PLUGIN)
    (package / "two.py").write_text(PLUGIN + "\n\nclass Other(Base):\n    pass\n")
    (package / "none.py").write_text("from compressors.base import Base\n")
    (package / "broken.py").write_text("import a_module_that_is_missing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "plugin_package"
    for module in [name for name in sys.modules if name.startswith("plugin_package")]:
        del sys.modules[module]


def test_available() -> None:
    assert available() == ["adc", "base", "bottlenet", "c3sl", "fedlite", "randtopk", "splitfc", "topk"]


@pytest.mark.parametrize("name", available())
def test_every_method_builds_with_its_defaults(name: str) -> None:
    compressor = build(name)
    assert isinstance(compressor, Compressor)
    assert compressor.name == name
    assert compressor.at_eval is (name == "bottlenet")
    assert build(name, at_eval=True).at_eval is True
    assert build(name, at_eval=False).at_eval is False
    assert type(build(f"compressors.{name}")) is type(compressor)


@pytest.mark.parametrize(
    ("name", "options", "attributes"),
    [
        ("adc", {}, {"ratio": 0.25, "vector": "cls_score", "group_size": 1, "prefix_tokens": 1}),
        ("adc", {"ratio": 1}, {"ratio": 1, "batch_ratio": 1, "token_ratio": 1}),
        ("topk", {}, {"rate": 0.1, "index_bits": "per_sample"}),
        ("randtopk", {"alpha": 0}, {"rate": 0.1, "alpha": 0, "index_bits": "per_sample"}),
        ("c3sl", {}, {"group": 4, "group_size": 4}),
        ("bottlenet", {}, {"ratio": 0.1, "final_relu": True}),
    ],
)
def test_options_arrive(name: str, options: dict[str, Any], attributes: dict[str, Any]) -> None:
    compressor = build(name, **options)
    assert {key: getattr(compressor, key) for key in attributes} == attributes


ERRORS: list[tuple[str, dict[str, Any], str]] = [
    ("adc", {"ratio": 1.5}, "compressor.ratio must be in (0, 1], got 1.5"),
    ("adc", {"ratio": 0}, "compressor.ratio must be in (0, 1], got 0"),
    ("adc", {"ratio": float("nan")}, "compressor.ratio must be in (0, 1], got nan"),
    ("adc", {"ratio": "high"}, "compressor.ratio must be a number, got 'high'"),
    ("adc", {"ratio": True}, "compressor.ratio must be a number, got true"),
    ("adc", {"ratio": None}, "compressor.ratio must be a number, got null"),
    ("adc", {"batch_ratio": "x"}, "compressor.batch_ratio must be a number or null, got 'x'"),
    ("adc", {"batch_ratio": 2.0, "token_ratio": 0.1}, "compressor.batch_ratio must be in (0, 1], got 2.0"),
    (
        "adc",
        {"batch_ratio": 0.5},
        "compressor.batch_ratio and compressor.token_ratio must be given together, "
        "got batch_ratio=0.5 and token_ratio=None",
    ),
    (
        "adc",
        {"rule": "cube"},
        "compressor.rule must be one of sqrt, pow_1_5_4_5, release2026, got 'cube'",
    ),
    (
        "adc",
        {"vector": "cls"},
        "compressor.vector must be one of cls_score, cls_token, avg_token, got 'cls'",
    ),
    (
        "topk",
        {"ratio": 0.1},
        "compressor.ratio is not an option of topk (did you mean 'rate'?); its options are rate, index_bits, at_eval",
    ),
    ("topk", {"rate": -0.1}, "compressor.rate must be in (0, 1], got -0.1"),
    (
        "topk",
        {"index_bits": "both"},
        "compressor.index_bits must be one of per_sample, per_batch, got 'both'",
    ),
    ("randtopk", {"alpha": 1.0}, "compressor.alpha must be in [0, 1), got 1.0"),
    ("randtopk", {"rate": 2}, "compressor.rate must be in (0, 1], got 2"),
    ("c3sl", {"group": 0}, "compressor.group must be at least 1, got 0"),
    ("c3sl", {"group": 2.0}, "compressor.group must be a whole number, got 2.0"),
    ("c3sl", {"group": True}, "compressor.group must be a whole number, got true"),
    ("bottlenet", {"final_relu": 1}, "compressor.final_relu must be true or false, got 1"),
    ("bottlenet", {"ratio": 0.0}, "compressor.ratio must be in (0, 1], got 0.0"),
    ("base", {"ratio": 1.0}, "compressor.ratio is not an option of base; its options are at_eval"),
    (
        "topkk",
        {},
        "compressor must be one of adc, base, bottlenet, c3sl, fedlite, randtopk, splitfc, topk, "
        "or the dotted path of a module, got 'topkk' (did you mean 'topk'?)",
    ),
    (
        "kmeans",
        {},
        "compressor must be one of adc, base, bottlenet, c3sl, fedlite, randtopk, splitfc, topk, "
        "or the dotted path of a module, got 'kmeans'",
    ),
    (
        "no_such_package.method",
        {},
        "compressor must name a module that can be imported, got 'no_such_package.method': no module 'no_such_package'",
    ),
    ("compressors.kmeans", {}, "compressor module compressors.kmeans must define one Compressor, found none"),
]


@pytest.mark.parametrize(("name", "options", "message"), ERRORS)
def test_errors_are_one_clear_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        build(name, **options)
    assert str(caught.value) == message


def test_a_users_own_module(plugin: str) -> None:
    mine = build(f"{plugin}.mine", strength=3, other=[1])
    assert mine.name == "mine" and vars(mine)["strength"] == 3
    with pytest.raises(ValueError, match=r"^compressor\.strength must be given, mine has no default for it$"):
        build(f"{plugin}.mine")
    with pytest.raises(ValueError, match=r"^compressor\.label must be a string or null, got 3$"):
        build(f"{plugin}.mine", strength=3, label=3)
    with pytest.raises(ValueError, match="must define one Compressor, found Mine, Other"):
        build(f"{plugin}.two")
    with pytest.raises(ValueError, match="must define one Compressor, found none"):
        build(f"{plugin}.none")
    with pytest.raises(ValueError, match=r"no module 'plugin_package\.absent'"):
        build(f"{plugin}.absent")
    line = r"^compressor: .*\.broken cannot be imported: .*'a_module_that_is_missing'$"
    with pytest.raises(ImportError, match=line):  # its author's to see
        build(f"{plugin}.broken")


def test_the_package_knows_nothing_of_the_platform() -> None:
    files = list(Path(compressors.__path__[0]).glob("*.py"))
    assert len(files) > 6
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module
                names = [node.module]
            for name in names:
                root = name.partition(".")[0]
                ours = {"torch", "compressors", *({"triton"} if file.stem == "kmeans_triton" else ())}
                assert root in {*ours, *sys.stdlib_module_names}, f"{file.name}: {name}"
