"""What can be taken along from the page: charts, their data, and how to cite and repeat the runs."""

from __future__ import annotations

import io
import re
import shlex
import sys
from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from make_runs import config, make_run, rounds_table, summary_of
from scipy import stats

from flsplit.compose import compose, request
from flsplit.report import cite
from flsplit.report.groups import groups
from flsplit.report.page import write_report
from flsplit.report.runs import load_run

EXTENSIONS = Path(__file__).parents[1] / "extensions"


def files(tmp_path: Path, *runs: Path) -> dict[str, str]:
    """What the page's links save, by name."""
    write_report(runs, tmp_path / "page.html")
    links = re.findall(r'<a download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', (tmp_path / "page.html").read_text())
    return {name: b64decode(data).decode() for name, data in links}


@pytest.mark.slow
def test_every_chart_as_svg_and_as_csv(tmp_path: Path) -> None:
    rounds = rounds_table(12)
    found = files(tmp_path, make_run(tmp_path / "run", rounds=rounds))
    charts = {name.removesuffix(".svg") for name in found if name.endswith(".svg")}
    assert len(charts) == 6
    assert charts == {name.removesuffix(".csv") for name in found if name.endswith(".csv")}
    for name in charts:
        root = ElementTree.fromstring(found[f"{name}.svg"])
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in found[f"{name}.svg"]
    data = pd.read_csv(io.StringIO(found["test-accuracy-over-rounds.csv"]))
    assert list(data) == ["line", "round", "test accuracy (%)"]
    assert np.allclose(data["test accuracy (%)"], 100 * rounds["test_accuracy"])
    held = pd.read_csv(io.StringIO(found["samples-of-each-label-at-each-client.csv"]), index_col="client")
    assert held.to_numpy().sum() == 5000


@pytest.mark.slow
def test_seeds_are_one_line_between_their_least_and_greatest(tmp_path: Path) -> None:
    tables = [rounds_table(12, seed=seed) for seed in range(3)]
    runs = [make_run(tmp_path / str(seed), config(seed=seed), rounds=table) for seed, table in enumerate(tables)]
    late = make_run(tmp_path / "late", config(seed=3), rounds=rounds_table(5, seed=3), summary=False)
    data = pd.read_csv(io.StringIO(files(tmp_path, *runs, late)["test-accuracy-over-rounds.csv"]))
    values = 100 * np.stack([table["test_accuracy"] for table in tables])
    assert np.allclose(data["test accuracy (%)"], values.mean(0))
    assert np.allclose(data["least"], values.min(0))
    assert np.allclose(data["greatest"], values.max(0))
    page = (tmp_path / "page.html").read_text()
    assert "3 of 4" in page and page.count("adc ratio=0.1 · splitfed_v1 · 3 of 4 seeds</li>") == 2
    assert set(data["seeds"]) == {3} and "4 seeds</li>" not in page.replace("3 of 4 seeds", "")
    half = stats.t.ppf(0.975, len(values) - 1) * values[:, -1].std(ddof=1) / len(values) ** 0.5
    assert f"{values[:, -1].mean():.1f} ± {half:.1f}" in page


@pytest.mark.slow
def test_the_legend_counts_the_seeds_in_a_line_while_none_has_ended(tmp_path: Path) -> None:
    for seed, done in enumerate((4, 5, 5)):
        make_run(tmp_path / str(seed), config(seed=seed), rounds=rounds_table(done, seed=seed), summary=False)
    for seed in (0, 1):
        blind = rounds_table(3).assign(test_accuracy=np.nan)
        make_run(tmp_path / f"blind{seed}", config(seed=seed, clients=4), rounds=blind, summary=False)
    data = pd.read_csv(io.StringIO(files(tmp_path, tmp_path)["test-accuracy-over-rounds.csv"]))
    assert set(data["line"]) == {"10 clients"} and set(data["seeds"]) == {2}
    found = re.findall(r"</svg>([^<]+)</li>", (tmp_path / "page.html").read_text())
    assert [name for name in found if "seeds" in name] == [
        "4 clients · 0 of 2 seeds", "10 clients · 2 of 3 seeds", "4 clients · 2 seeds", "10 clients · 2 of 3 seeds",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_seed_whose_budget_was_spent_sooner_is_in_the_mean(tmp_path: Path) -> None:
    tables = [rounds_table(5 + seed, seed=seed) for seed in range(3)]
    runs = [
        make_run(tmp_path / str(seed), config(seed=seed), rounds=table, summary=summary_of(table, status="budget"))
        for seed, table in enumerate(tables)
    ]
    data = pd.read_csv(io.StringIO(files(tmp_path, *runs)["test-accuracy-over-rounds.csv"]))
    values = 100 * np.stack([table["test_accuracy"][:5] for table in tables])
    assert data["round"].tolist() == [1, 2, 3, 4, 5] and np.allclose(data["test accuracy (%)"], values.mean(0))


@pytest.mark.some
@pytest.mark.parametrize(
    "asked",
    [
        ["engine=inline", "rounds=3", "seed=5"],
        ["compressor=topk", "compressor.rate=0.2", "partition=shards", "lr=0.01", "metrics=[accuracy,top5]"],
        ["strategy=fedavg", "clients=4", "quantizer=uniform", "quantizer.bits=4", "channel=awgn", "network=lte"],
        ["model=timm", "model.name=vit_tiny_patch16_224"],
        ["strategy.aggregator=fedprox", "strategy.aggregator_args.proximal_mu=0.01"],
        ["experiment=paper", "dataset=digits", "clients=2", "budget.base_epochs=2"],
    ],
)  # fmt: skip
def test_the_command_asks_for_the_same_run(tmp_path: Path, asked: list[str]) -> None:
    wanted = compose(asked)
    run = make_run(tmp_path / "run", yaml.safe_load(wanted.to_yaml(tmp_path / "run")))
    [group] = groups([load_run(run)], ["run"])
    program, *words = shlex.split(cite.command(group))
    assert program == "flsplit"
    assert compose(words).to_yaml(tmp_path / "run") == wanted.to_yaml(tmp_path / "run")


def own(folder: str, *keys: str) -> list[str]:
    """An extension in a folder of its own, chosen as `--config-dir` does it."""
    return [f'hydra.searchpath=["file://{EXTENSIONS / folder / "conf"}"]', *keys]


@pytest.mark.some
@pytest.mark.parametrize(
    "asked",
    [
        own("topnorm", "compressor=topnorm", "compressor.ratio=0.25", "clients=4"),
        own("topnorm", "compressor=topnorm", "engine=inline"),
        own("uniform8", "quantizer=uniform8", "quantizer.bits=4"),
        own("growing", "partition=growing", "partition.first=2"),
        own("hiss", "channel=hiss"),
        own("buffered", "strategy=buffered", "strategy.buffer=3", "+strategy.aggregator_args.proximal_mu=0.1",
            "+strategy.aggregator=fedprox"),
    ],
    ids=lambda asked: asked[1],
)  # fmt: skip
def test_the_command_asks_for_the_same_method_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.chdir(EXTENSIONS)
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXTENSIONS)])
    wanted = compose(asked)
    values = yaml.safe_load(wanted.to_yaml(tmp_path / "run"))
    found = groups([load_run(make_run(tmp_path / "run", values))], ["run"])
    _, *words = shlex.split(cite.command(found[0]))
    assert compose(words).as_dict() == wanted.as_dict()
    two = [load_run(make_run(tmp_path / str(seed), {**values, "seed": seed})) for seed in (0, 1)]
    _, many, *words = shlex.split(cite.command(groups(two, ["0", "1"])[0]))
    jobs = [job.as_dict() for job in request(words, sweep=True).jobs]
    assert many == "-m" and [{**job, "out": None} for job in jobs] == [
        {**wanted.as_dict(), "seed": seed} for seed in (0, 1)
    ]
    module = values[asked[1].partition("=")[0]]["name"]
    assert f"and the like, and the module <code>{module}</code>, are in" in cite.section(found)


def test_a_sweep_over_seeds_is_one_command(tmp_path: Path) -> None:
    values = yaml.safe_load(compose(["engine=inline"]).to_yaml(tmp_path))
    runs = [load_run(make_run(tmp_path / str(seed), {**values, "seed": seed})) for seed in (0, 1)]
    assert [cite.command(group) for group in groups(runs, ["0", "1"])] == ["flsplit -m engine=inline seed=0,1"]


def test_it_is_cited_as_the_file_for_that_says(tmp_path: Path) -> None:
    said = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
    assert (said["title"], said["authors"][0]["name"]) == (cite.TITLE, cite.AUTHORS)
    assert str(cite.YEAR) == str(said["date-released"])[:4]
    assert said["references"][0]["title"] in cite.PAPER


@pytest.mark.slow
def test_no_folder_of_this_machine_is_in_what_is_taken_along(tmp_path: Path) -> None:
    settings = config(dataset={"name": "folder", "path": str(tmp_path / "data")}, out=str(tmp_path / "run"))
    found = files(tmp_path, make_run(tmp_path / "run", settings))
    assert "data" in yaml.safe_load(found["config.yaml"])["dataset"]["path"]
    assert not any(str(tmp_path) in text for text in found.values())
