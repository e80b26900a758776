"""The multi-client study: its grid, what a point is on the command line, its table and figures."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import pandas as pd
import pytest

from experiments.bench.images import noise
from experiments.point import Point
from experiments.results import COLUMNS, Results
from experiments.study import __main__ as command
from experiments.study import adc_multi_client as study
from experiments.study import many_clients, noisy_link, quantised_adc
from flsplit.compose import compose


def test_the_grid_and_its_core() -> None:
    whole = study.points(scale="study-cpu")
    core = study.points(scale="study-cpu", core=True)
    assert len({point.slug for point in whole}) == len(whole) == 4 * (1 + 3 * 3 * 3)
    assert len(core) == 32 and whole[:32] == core
    assert {(p.clients, p.alpha, p.strategy) for p in core[:4]} == {(10, 0.5, "splitfed_v1")}
    assert {point.strategy for point in core} == {"splitfed_v1", "splitfed_v2", "parallel"}
    assert {point.alpha for point in core if point.clients > 1} == {inf, 0.5, 0.1}


@pytest.mark.slow
def test_points_compose_and_have_the_same_budget(tmp_path: Path) -> None:
    noise(tmp_path / "data", train=4, test=2)
    (tmp_path / "weights").touch()
    for point in study.points(scale="study-cpu")[::9]:
        config = compose(point.overrides(data=str(tmp_path / "data"), weights=str(tmp_path / "weights")))
        assert config.clients == point.clients and config.strategy["name"] == point.strategy
        assert point.clients == 1 or (config.partition["name"], config.partition.get("alpha")) == (
            "dirichlet",
            point.alpha,
        )
        assert config.compressor["name"] == point.method and config.rounds is None
        assert (config.budget.base_epochs, config.budget.count_models, config.batch_size) == (15, True, 16)
        assert config.budget.share == ("pool" if point.clients > 1 else "equal")
        assert (config.local_epochs, config.lr, config.precision) == (2, 2e-4, "bf16")
        assert point.strategy != "parallel" or config.strategy["sync"] == "round"


def made_up(folder: Path) -> Results:
    """Rows and curves of the core, as if it had been run."""
    rows = []
    (folder / "curves").mkdir()
    for number, point in enumerate(study.points(scale="study-cpu", core=True)):
        values = dict.fromkeys(COLUMNS, 0) | point.key
        rows.append(values | {"experiment": "adc_multi_client", "final_test_accuracy": number / 100, "device": "cpu"})
        curve = {"round": [1, 2, 3], "samples": 1, "uplink_bits": [1e9, 2e9, 3e9], "downlink_bits": 0}
        curve |= {"sync_bits": 1e9, "xi": 0.1, "train_loss": 1.0, "test_accuracy": [None, 0.1, number / 100]}
        pd.DataFrame(curve).to_csv(folder / "curves" / f"{point.slug}.csv", index=False)
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    return Results(folder)


@pytest.mark.slow
def test_rows_are_found_drawn_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = made_up(tmp_path)
    points = study.points(scale="study-cpu", core=True)
    for number, point in enumerate(points):
        row = results.row(point)
        assert row is not None and row.final_test_accuracy == number / 100
    folders = ["--results", str(tmp_path), "--figures", str(tmp_path / "figures"), "--runs", str(tmp_path / "runs")]
    assert command.main(["adc_multi_client", "--scale", "study-cpu", "--core", *folders]) == 0
    out = capsys.readouterr().out
    assert "nothing to run, 32 runs are there" in out
    assert len([line for line in out.splitlines() if " 0.0" in line or " 0.1" in line or " 0.2" in line]) >= 30
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"adc_multi_client-study-cpu-n{clients}.png" for clients in (1, 5, 10, 20)
    }
    assert not (tmp_path / "runs").exists()


def test_help_says_what_each_name_is_and_how_many_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"{what} (" in shown for what in command.NAMES.values())
    assert (
        "(112 runs, 32 with --core)" in shown
    )  # 4 methods; 3 x 3 x 3 + 1 grids, of which 2 + 2 + 2 + 1 + 1 are its core


def test_a_grid_is_narrowed_and_set_apart(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--scale study-cpu --clients 1,5 --alphas inf --strategies splitfed_v2 --methods adc --set lr=5e-5 --list"
    assert command.main(["adc_multi_client", *words.split()]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        f"study-cpu-cifar100-deit_tiny-adc-sqrt-{ratio}_lr_5e-5-{size}s43422"
        for size in ("", "n5-splitfed_v2-dirichlet-inf-")
        for ratio in (0.1, 0.2)
    ] + ["0 of 4 done"]
    point = study.points(options=("lr=5e-5",), scale="study-cpu")[0]
    assert "lr=5e-5" in point.overrides(data=None, weights=None)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("adc_multi_client --clients=7", "--clients: must be of 1, 5, 10, 20 in adc_multi_client, got '7'"),
        ("adc_multi_client --alphas=0.5,two", "--alphas: must be of 0.1, 0.5, inf in adc_multi_client, got 'two'"),
        ("adc_multi_client --core --clients=5 --alphas=0.1", "adc_multi_client has nothing of this choice"),
        ("many_clients --alphas=0.5", "--alphas: must be of 0.05, 0.3, inf in many_clients, got '0.5'"),
        ("many_clients --methods=c3sl", "--methods: must be of adc, base, topk in many_clients, got 'c3sl'"),
        ("quantised_adc --alphas=0.5", "--alphas: quantised_adc has no choice of them"),
        ("noisy_link --strategies=parallel", "--strategies: noisy_link has no choice of them"),
        ("noisy_link --core", "--core: noisy_link takes no notice of it, leave it out"),
        (
            "many_clients --scale=study",
            "--scale: many_clients takes no notice of it, leave it out",
        ),
    ],
)
def test_a_choice_that_is_not_there_is_named(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(words.split()) == 2
    assert capsys.readouterr().err == f"experiments.study: {line}\n"


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("many_clients --clients 50 --methods base --seeds 51", 3),
        ("many_clients --clients 10 --alphas 0.3 --strategies splitfed_v2 --methods topk --seeds 43422", 2),
        ("many_clients --alphas 0.05 --methods base --seeds 51", 3),  # all data in one place has no alpha
        ("time_to_accuracy --strategies fedbuff --seeds 51", 4),
    ],
)
def test_any_study_is_narrowed(words: str, runs: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*words.split(), "--list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f" of {runs} done")


def test_no_rows_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["adc_multi_client", "--draw", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "experiments.study: adc_multi_client: no rows yet\n"


@pytest.mark.slow
def test_quantised_rows_are_found_drawn_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = quantised_adc.points()
    assert len(points) == 40 and [quantised_adc.bits_of(p) for p in points[:20:4]] == [32, 16, 8, 4, 2]
    rows = []
    for point in points:
        bits = quantised_adc.bits_of(point)
        more = {"final_test_accuracy": 0.4 + bits / 1000 + 0.01 * (point.seed == 51), "uplink_bits": bits * 10**9}
        rows.append(dict.fromkeys(COLUMNS, 0) | point.key | {"rule": point.rule or "", "method": point.method} | more)
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    folders = ["--results", str(tmp_path), "--figures", str(tmp_path / "figures"), "--runs", str(tmp_path / "runs")]
    assert command.main(["quantised_adc", *folders]) == 0
    out = capsys.readouterr().out
    assert "nothing to run, 40 runs are there" in out and (tmp_path / "figures" / "quantised_adc-link-cpu.png").exists()
    assert "base         32    43.70  43.20- 44.20   32.0000     2" in out
    [told] = [line for line in out.splitlines() if line.startswith("No row has")]
    assert told.count("%") == 5 and "40.7%" in told and told.endswith("at 32 bits (32 Gb).")
    config = points[8].overrides(data=None, weights=None)
    assert {"rounds=4", "budget.base_epochs=null", "quantizer=uniform", "quantizer.bits=8"} <= set(config)
    assert [point.rounds() for point in points[:8]] == [4, 23, 44, 34] * 2


@pytest.mark.slow
def test_rows_of_noisy_links_are_found_drawn_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = noisy_link.points()
    assert len({point.slug for point in points}) == len(points) == 2 * 3 * (1 + 3 * 3)
    assert [noisy_link.channel_of(p) for p in points[:12:3]] == [
        ("clean", None), ("awgn", 10.0), ("rayleigh", 10.0), ("erasure", 0.1),
    ]  # fmt: skip
    assert points[:2] == [p for p in quantised_adc.points() if p.options == () and p.seed == 43422][:2]
    rows = []
    for point in points:
        kind, level = noisy_link.channel_of(point)
        accuracy = 0.4 - 0.02 * (kind != "clean") - 0.01 * (level == 0) + 0.01 * (point.seed == 51)
        more = {"rule": point.rule or "", "final_test_accuracy": accuracy}
        rows.append(dict.fromkeys(COLUMNS, 0) | point.key | more)
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    folders = ["--results", str(tmp_path), "--figures", str(tmp_path / "figures"), "--runs", str(tmp_path / "runs")]
    assert command.main(["noisy_link", "--draw", *folders]) == 0
    out = capsys.readouterr().out.splitlines()
    assert (tmp_path / "figures" / "noisy_link-link-cpu.png").exists()
    assert "clean           base          40.50  40.00- 41.00            2" in out
    assert "awgn          0 adc 0.2       37.50  37.00- 38.00   3.00     2" in out
    assert "erasure     0.3 topk 0.2      38.50  38.00- 39.00   2.00     2" in out
    keys = set(points[3].overrides(data=None, weights=None))
    assert {"rounds=4", "channel=awgn", "channel.snr_db=10", "dataset.label_column=coarse_label"} <= keys
    assert points[0].shape().classes == 20


@pytest.mark.slow
def test_many_clients_are_listed_gathered_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = many_clients.points()
    assert len({point.slug for point in points}) == len(points) == 86
    assert [p.clients for p in points[:3]] == [1, 1, 10] and points[2].alpha == 0.3
    cohorts = [p for p in points if "compressor.scope=cohort" in p.options]
    assert {p.strategy for p in cohorts} == {"parallel", "splitfed_v2"} and len(cohorts) == 12
    noise(tmp_path / "data", train=4, test=2)
    (tmp_path / "weights").touch()
    whole = next(p for p in points if "model.tune=all" in p.options)
    assert compose(whole.overrides(data=str(tmp_path / "data"), weights=str(tmp_path / "weights"))).lr == 1e-4
    for point in (points[2], cohorts[0], cohorts[1]):
        config = compose(point.overrides(data=str(tmp_path / "data"), weights=str(tmp_path / "weights")))
        assert (config.batch_size, config.budget.base_epochs, config.budget.count_models) == (64, 4, True)
        assert (config.model.tune, config.model.tune_server, config.budget.share) == ("lora", "all", "pool")
        assert (config.partition["holdout"], config.rounds, config.lr) == (0.1, 30, 3e-4)
    rows = []
    for point in points:
        more = {"final_test_accuracy": 0.5 + 0.02 * (point.seed == 51), "uplink_bits": 3 * 10**9, "sync_bits": 10**9}
        more |= {"worst_client_accuracy": None if point.clients == 1 else 0.25, "rule": point.rule or ""}
        rows.append(dict.fromkeys(COLUMNS, 0) | point.key | more)
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    folders = ["--results", str(tmp_path), "--figures", str(tmp_path / "figures"), "--runs", str(tmp_path / "runs")]
    assert command.main(["many_clients", "--draw", *folders]) == 0
    out = capsys.readouterr().out.splitlines()
    assert (tmp_path / "figures" / "many_clients-edge-cpu.png").exists()
    [centre] = [line for line in out if line.split()[:6] == ["10", "splitfed_v2", "0.3", "lora", "base", "51.0"]]
    assert centre.split()[5:] == ["51.0", "±", "12.7", "25.0", "0", "4.00", "25%", "2"]  # t(0.975, 1) = 12.7
    [alone] = [line for line in out if line.split()[:5] == ["1", "-", "-", "all", "base"]]
    assert alone.split()[-4:] == ["0", "4.00", "25%", "2"] and " - " in alone
    [cohort] = [line for line in out if "adc 0.1 cohort" in line and "parallel" in line]
    assert cohort.split()[-1] == "2"
    for told in ("adc 0.1 within class", "adc 0.1 loss by size", "adc 0.1 by diversity", "base logits adjusted"):
        [skewed] = [line for line in out if told in line]
        assert skewed.split()[:4] == ["10", "splitfed_v2", "0.3", "lora"]
    [few] = [line for line in out if "base 10 balanced" in line]
    assert few.split()[:4] == ["50", "splitfed_v2", "0.3", "lora"]


def test_runs_that_diverged_are_told(tmp_path: Path) -> None:
    def rows_of(points: list[Point], accuracies: list[float | None]) -> Results:
        rows = [
            dict.fromkeys(COLUMNS, 0) | p.key | {"rule": p.rule or "", "uplink_bits": 10**9, "final_test_accuracy": a}
            for p, a in zip(points, accuracies, strict=True)
        ]
        pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
        return Results(tmp_path)

    quantised = [p for p in quantised_adc.points() if p.method == "base" and quantised_adc.bits_of(p) in (32, 8)]
    rows = quantised_adc.gather(quantised, rows_of(quantised, [0.3, 0.4, 0.5, None]))
    table = quantised_adc.table(rows).splitlines()
    assert table[1].split() == ["base", "32", "40.00", "30.00-", "50.00", "1.0000", "2"]
    assert table[2].split() == ["base", "8", "diverged", "1.0000", "2"]
    assert "these: 40.0% base at 32 bits (1 Gb)." in table[-1]
    assert len(quantised_adc.draw(rows, Results(tmp_path), tmp_path)) == 1

    link = [p for p in noisy_link.points() if p.method == "base"]
    link = [p for p in link if noisy_link.channel_of(p) in (("clean", None), ("awgn", 10.0), ("erasure", 0.1))]
    rows = noisy_link.gather(link, rows_of(link, [0.5, 0.4, 0.4, None, 0.4, 0.3]))
    channel = {line.split()[0]: line.split()[-4:] for line in noisy_link.table(rows).splitlines()[1:-1]}
    assert channel["clean"] == ["clean", "base", "diverged", "2"]
    assert channel["awgn"] == ["40.00", "40.00-", "40.00", "2"]  # one of the two that it is set against diverged
    alone = noisy_link.gather(link[1:], rows_of(link[1:], [0.4] * 5))  # a seed without a row of the clean link
    assert alone.lost.tolist() == [0.0, 0.0, 0.0] and alone.seeds.tolist() == [1, 1, 1]

    edge = [p for p in many_clients.points() if p.method == "topk"]
    both = [edge[0], replace(edge[0], seed=51)]
    told = many_clients.table(many_clients.gather(both, rows_of(both, [0.4, None]))).splitlines()[1]
    assert " diverged " in told and "±" not in told

    grid = study.points(scale="study-cpu", core=True)[:1]
    assert " diverged " in study.table(study.gather(grid, rows_of(grid, [None])))
