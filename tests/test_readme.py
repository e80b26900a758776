"""What the README and the pages show is run, as a reader would run it, and what they say of the code is so."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import yaml
from click import UsageError
from helpers.pages import Reader, blocks, forget_mine, inline_commands

from experiments.picture import POINT, labels
from flsplit.errors import UserError

ROOT = Path(__file__).parents[1]
ROOMS = ("compressors", "strategies", "flsplit", "conf", "experiments")
PAGES = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).glob("**/*.md"))])
README = (ROOT / "README.md").read_text()
DOORS = {  # pages that show how to add something of one's own
    "compressors", "compressors/stages", "strategies", "flsplit/split/tuning", "flsplit/split/families",
    "flsplit/data/partitions", "flsplit/metrics",
}  # fmt: skip
TUTORIALS = (
    "flsplit/data/README.md#your-own-images", "compressors/README.md#a-compressor-of-your-own",
    "strategies/README.md#a-strategy-of-your-own", "flsplit/split/families/README.md#a-model-of-your-own",
    "flsplit/record/README.md#read-a-run-in-pandas", "flsplit/report/README.md#from-a-simulation-to-a-figure",
    "flsplit/engine/README.md#a-gpu-node",
)  # fmt: skip


def name(page: Path) -> str:
    """A page's path; of a room's first page, the room's."""
    return str(page.relative_to(ROOT).with_suffix("")).removesuffix("/README")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Somebody in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget_mine()
    matplotlib.use("Agg")
    return Reader(tmp_path)


@pytest.mark.slow
@pytest.mark.some
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_what_a_page_shows_runs(page: Path, reader: Reader) -> None:
    reader.whole = name(page) == "compressors"
    reader.work_through(page)
    if name(page) == "compressors":
        assert pd.read_parquet(reader.runs[-1] / "rounds.parquet").xi.iloc[-1] == pytest.approx(5 / 17, abs=1e-3)
    if name(page) == "flsplit/data/partitions":
        parts = pd.read_parquet(reader.runs[-1] / "partition.parquet").groupby("client")["count"].sum()
        assert parts.tolist() == [18, 7, 5]
    if name(page) == "flsplit/metrics":
        assert pd.read_parquet(reader.runs[-1] / "rounds.parquet").test_confidence.between(0.1, 1).all()


@pytest.mark.some
@pytest.mark.parametrize("page", [page for page in PAGES if inline_commands(page)], ids=name)
def test_commands_in_running_text_are_commands(page: Path, reader: Reader) -> None:
    for command in inline_commands(page):
        reader.type(command, run=False)


@pytest.mark.parametrize(
    "command",
    [
        "flsplit compressor.ration=0.1", "flsplit strategy=splitfed_v4", "python -m experiments.paper fig2",
        "python -m experiments.bench singel", "ray start --heads", "make everything", "flsplat",
        'pip install "flsplit[nothing]"',
    ],
)  # fmt: skip
def test_a_command_that_is_wrong_is_found(command: str, reader: Reader) -> None:
    with pytest.raises((UserError, AssertionError, SystemExit, UsageError)):
        reader.type(command, run=False)


def test_a_page_that_is_wrong_is_found(reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text in (
        "```python\n1 / 0\n```",
        "```python\nprint(1)\n```\n\n```text\n2\n```",
        "```bash\nflsplit cleints=3\n```",
    ):
        page.write_text(text + "\n")
        with pytest.raises((ZeroDivisionError, AssertionError, UserError)):
            reader.work_through(page)


def test_each_door_has_a_page_with_a_short_example() -> None:
    shown = {page: [block for block in blocks(page) if block.file] for page in PAGES}
    assert {name(page) for page, files in shown.items() if files} == DOORS
    assert max(len(block.text.splitlines()) for files in shown.values() for block in files) <= 45


def test_each_room_says_what_to_read_first() -> None:
    for page in PAGES:
        if page.name == "README.md" and page.parent != ROOT:
            text = page.read_text()
            assert "What lives here" in text and "## Read first" in text, page


def test_the_readme_is_two_screens_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= 110
    assert all(f"({door})" in README for door in TUTORIALS)
    seen, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        targets = {(page.parent / link).resolve() for link in links(page) if not link.startswith("http")}
        ahead += [page for page in targets if page.suffix == ".md" and page not in seen]
    assert {page for page in PAGES if page.name != "SECURITY.md"} <= seen


def links(page: Path) -> list[str]:
    """Targets of a page's links, without the places in them."""
    return re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())


def places(page: Path) -> set[str]:
    """Headings of a page as GitHub names them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        assert link.startswith("http") or (page.parent / link).exists(), link
    for link, place in re.findall(r"\]\(([^)#\s]*)#([^)]*)\)", page.read_text()):
        if not link.startswith("http"):
            assert place in places(page.parent / link if link else page), f"{link}#{place}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lines_are_short_and_name_no_machine(page: Path) -> None:
    for line in page.read_text().splitlines():
        assert len(line) <= 126 or line.startswith("|"), line
        assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp|mnt)/", line), line


def test_the_page_of_keys_has_all_of_them() -> None:
    """Every key, every choice of every group, and the defaults that are numbers."""
    from flsplit.compose import compose

    page = (ROOT / "conf" / "README.md").read_text()
    told = set(re.findall(r"`\.?([\w.]+)`", page)) | set(re.findall(r"`(\w+)` (?:\d|none|auto|false|all)", page))
    config = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    keys = set(config) - {"defaults", "hydra", "resume_force"}
    keys |= {key.name for key in (ROOT / "conf").iterdir() if key.is_dir()}
    assert keys <= told, keys - told
    for group in (
        "dataset",
        "model",
        "compressor",
        "quantizer",
        "channel",
        "network",
        "strategy",
        "partition",
        "engine",
    ):
        choices = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert choices <= told, choices - told
    numbers = re.findall(r"`(clients|rounds|local_epochs|batch_size|eval_every|seed|min_clients)` (\d+)", page)
    assert len(numbers) == 7
    defaults = compose([])
    for key, value in numbers:
        assert getattr(defaults, key) == int(value)


@pytest.mark.slow
def test_the_glossary_names_what_there_is() -> None:
    from flsplit.compose import compose
    from flsplit.record.tables import ROUNDS

    text = (ROOT / "flsplit" / "glossary.md").read_text()
    config = compose(["compressor=adc"]).as_dict()
    other = {"compressor.rate": "topk", "compressor.group": "c3sl"}
    for group, key in re.findall(r"`(\w+)\.(\w+)`", text):
        found = compose([f"compressor={other[f'{group}.{key}']}"]).as_dict() if f"{group}.{key}" in other else config
        assert key in found[group], f"{group}.{key}"
    for word in re.findall(r"`(\w+_(?:bits|bytes))`", text):
        assert word in ROUNDS.names, word


def test_what_the_comparison_says_of_flsplit_is_so() -> None:
    import compressors
    from flsplit.server.strategy import available, build

    row = dict(
        re.findall(
            r"^\| (strategies|compressors of activations|clients|what was sent|model) \| ([^|]+) \|",
            README,
            re.MULTILINE,
        )
    )
    strategies = [build(name) for name in available()]
    alone = {"centralized"}  # one place, nobody to share with
    shared = [strategy for strategy in strategies if strategy.split and strategy.name not in alone]
    assert row["strategies"] == f"{len(strategies)}, of which {len(shared)} split the model among clients"
    behind = [{path.stem for path in (ROOT / "conf" / stage).glob("*.yaml")} - {"none", "clean"}
              for stage in ("quantizer", "channel")]  # fmt: skip
    methods = set(compressors.available()) - {"base"}
    assert (
        row["compressors of activations"]
        == f"{len(methods)}, with {len(behind[0])} quantisers and {len(behind[1])} channels behind each"
    )
    engines = list((ROOT / "conf" / "engine").glob("*.yaml"))
    assert row["clients"] == f"any number, in {len(engines)} engines"
    prices = {"uplink_bits", "nominal_bits", "wire_bytes"}
    from flsplit.record.tables import ROUNDS

    assert row["what was sent"] == "3 prices of every step, and models" and prices | {"sync_bits"} <= set(ROUNDS.names)
    from flsplit.split import families

    assert row["model"].startswith("ViTs and ResNets") and set(families.available()) == {"vit", "resnet"}


def test_the_picture_has_the_numbers_of_the_price_list() -> None:
    """ADC at 0.1 by hand: T = floor(128 sqrt(0.1)) = 40, k = floor(197 sqrt(0.1)) = 62."""
    from flsplit.display.units import human_bits

    said = labels()
    down = 40 * 62 * 192 * 32
    up = down + 128 * (7 + 6)  # labels of 100 classes, one of 40 clusters
    base = 128 * 197 * 192 * 32
    assert (POINT.step().uplink_bits, POINT.step().downlink_bits) == (up, down)
    assert said["up"].endswith(human_bits(up)) and said["down"].endswith(human_bits(down))
    assert said["up of base"] == f"{100 * up / (base + 128 * 7):.1f}% of {human_bits(base)} without compression"
    assert "128 samples to 40 clusters" in said["compress"] and "197 tokens to 62" in said["compress"]
    assert "40 x 62 x 192, 32 bits" in said["up fields"] and "128, 7 bits" in said["up fields"]
    assert said["down fields"] == "gradients 40 x 62 x 192, 32 bits each"


def test_what_is_cited_is_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
