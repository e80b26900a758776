"""Time to accuracy: the clock of the study is that of a run, and what its table says follows from curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from experiments.bench.images import noise
from experiments.point import SCALES, Point
from experiments.results import COLUMNS, Results
from experiments.study import __main__ as command
from experiments.study import time_to_accuracy as study
from flsplit.compose import compose
from flsplit.experiment import execute


@pytest.fixture
def small_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of 32 pixels, so that a run takes seconds."""
    for name in ("reduced", study.SCALE):
        monkeypatch.setitem(SCALES, name, replace(SCALES[name], size=32))
    study.work_of.cache_clear()
    yield
    study.work_of.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("small_images")
@pytest.mark.parametrize("method", [("base", None), ("adc", 0.2), ("topk", 0.1)])
def test_a_row_is_timed_as_its_run_would_have_been(method: tuple[str, float | None], tmp_path: Path) -> None:
    noise(tmp_path / "data", train=300, test=2)  # two whole batches
    point = Point(
        scale="reduced", dataset="cifar100", model="deit_tiny", method=method[0], value=method[1],
        rule="sqrt" if method[0] == "adc" else None, seed=7, options=("network=lte",),
    )  # fmt: skip
    keys = [key for key in point.overrides(data=str(tmp_path / "data"), weights=None) if "limit" not in key]
    keys += ["model.pretrained=false", "rounds=2", "budget.base_epochs=null", "strategy=splitfed_v3"]
    run = execute(compose([*keys, f"out={tmp_path / 'run'}", "device=cpu", "engine=inline"]))
    network = run.rounds[["simulated_seconds", "joules"]]
    assert network.notna().all(axis=None) and (network > 0).all(axis=None)
    curve = run.rounds[["round", "samples", "test_accuracy"]]
    found = study.timed(replace(point, options=()), curve, study._profile("lte"))
    pd.testing.assert_frame_equal(found[["simulated_seconds", "joules"]], network, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("small_images")
def test_synchronous_rounds_of_unlike_clients_are_timed_over_another_network_as_their_run_there(tmp_path: Path) -> None:
    noise(tmp_path / "data", train=300, test=2)
    point = replace(study.points(seeds=(7,))[1], clients=2)
    assert study.mode_of(point) == "synchronous" and point.method == "adc"
    runs = {}
    for network in ("lte", "5g"):
        there = replace(point, options=(f"network={network}", *point.options[1:]))
        keys = [key for key in there.overrides(data=str(tmp_path / "data"), weights=None) if "limit" not in key]
        keys += ["model.pretrained=false", "rounds=2", "local_epochs=1"]
        runs[network] = execute(compose([*keys, f"out={tmp_path / network}", "device=cpu", "engine=inline"])).rounds
    columns = ["simulated_seconds", "joules"]
    assert (runs["5g"][columns] < runs["lte"][columns]).all(axis=None)
    found = study.timed(point, runs["lte"].drop(columns=columns), study._network(point, "5g"))
    pd.testing.assert_frame_equal(found[columns], runs["5g"][columns], rtol=1e-12)
    pd.testing.assert_series_equal(found.test_loss, runs["5g"].test_loss, rtol=0.0)


def made_up(folder: Path, points: list[Point], ends: dict[str, list[float]]) -> Results:
    """Rows of these points, whose curves are evaluated in rounds 2 and 4."""
    (folder / "curves").mkdir(parents=True)
    rows = []
    for point in points:
        first, last = ends[point.method]
        rows.append(dict.fromkeys(COLUMNS, 0) | point.key | {"rule": point.rule or "", "final_test_accuracy": last})
        curve = {"round": [1, 2, 3, 4], "samples": [128 * 10 * n for n in (1, 2, 3, 4)]}
        curve |= {"test_accuracy": [None, first, None, last], "simulated_seconds": [100.0, 200.0, 300.0, 400.0]}
        pd.DataFrame(curve | {"joules": [1e3, 2e3, 3e3, 4e3]}).to_csv(
            folder / "curves" / f"{point.slug}.csv", index=False
        )
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    return Results(folder)


@pytest.mark.slow
def test_seconds_to_an_accuracy_and_what_bandwidth_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "BANDWIDTHS", study.BANDWIDTHS[::5])
    ends = {"base": [0.3, 0.4], "adc": [0.25, 0.35], "topk": [0.1, 0.2]}
    wanted = study.points(seeds=(43422,))
    assert len({point.slug for point in wanted}) == len(wanted) == (2 * 3 - 1) * 2
    assert {study.mode_of(point) for point in wanted} == set(study.TEN)
    results = made_up(tmp_path / "study", wanted, ends)
    one = [study._point(method, 43422, "reduced", ()) for method in study.METHODS]
    rows = study.gather(wanted, results, made_up(tmp_path / "paper", one, ends))
    ten = rows[(rows.setting != study.ONE) & rows.bandwidth.isna()]
    own = ten[ten.setting != "synchronous"]
    assert own[own.method == "base"].seconds.tolist() == [pytest.approx(300.0)] * 4  # halfway from 30 to 40%
    assert own[own.method == "adc"].joules.tolist() == [pytest.approx(4e3)] * 4
    assert ten[(ten.setting == "synchronous") & (ten.method == "adc")].network.tolist() == list(study.PROFILES)
    lone = rows[rows.setting == study.ONE]
    assert lone[lone.method == "topk"].seconds.isna().all() and not lone[lone.method != "topk"].seconds.isna().any()

    # By hand: at which bandwidth 40 steps of ADC, which send less, take as long as 30 of base.
    (base, _), (adc, _) = (study.work_of(replace(point, seed=0)) for point in one[:2])
    long, short = ((work.forward + work.backward) / 1e10 for work in (adc, base))
    decides = (30 * (base.up + base.down) - 40 * (adc.up + adc.down)) / (40 * long - 30 * short) / 1e6
    said = [line for line in study.table(rows).splitlines() if line.startswith("one client, 10 GFLOP/s: adc 0.2")]
    told = float(said[0].split(" up to ")[1].split()[0])
    step = study.BANDWIDTHS[1] / study.BANDWIDTHS[0]
    assert told <= decides * 1.005 and told * step > decides
    assert any("topk" in line and "never" in line for line in study.table(rows).splitlines())
    assert [path.name for path in study.draw(rows, results, tmp_path / "figures")] == [
        "time_to_accuracy-bandwidth.png", "time_to_accuracy-time-cpu.png",
    ]  # fmt: skip


def test_what_is_set_otherwise_keeps_the_time_of_its_run(tmp_path: Path) -> None:
    wanted = study.points((7,), ("quantizer=bf16",))
    rows = study.gather(wanted, made_up(tmp_path, wanted, {"base": [0.3, 0.4], "adc": [0.25, 0.35]}), Results(tmp_path))
    assert len(rows) == len(wanted) == 10 and rows.bandwidth.isna().all()
    assert set(rows[rows.setting == "synchronous"].network) == {"lte"}
    assert set(rows[rows.method == "base"].seconds.round(6)) == {300.0}


def test_a_method_of_which_a_seed_never_gets_there_is_not_there_first() -> None:
    def told(hours: dict[tuple[str, float | None], list[float]]) -> list[str]:
        found = [
            {"setting": study.ONE, "network": "custom", "bandwidth": mbps, "method": method, "value": value,
             "seed": seed, "seconds": 3600 * taken, "joules": 1.0}
            for mbps in (1.0, 10.0) for (method, value), of in hours.items() for seed, taken in enumerate(of, 1)
        ]  # fmt: skip
        return study.table(pd.DataFrame(found)).splitlines()[2:]

    base, never = ("base", None), float("nan")
    for later in (never, 40.0):
        [said] = told({base: [10.0, 30.0], ("adc", 0.2): [9.0, later]})
        assert "adc 0.2 is there before base at no bandwidth" in said and said.endswith("(each way; seeds 1, 2).")
    [alone] = told({base: [10.0, 30.0], ("adc", 0.2): [11.0]})  # sooner than the mean of base, of which a seed is slow
    assert "adc 0.2 is there before base at no bandwidth" in alone and alone.endswith("(each way; seeds 1).")
    [first] = told({base: [10.0, never], ("adc", 0.2): [11.0, 12.0]})
    assert "adc 0.2 is there before base up to 10 Mbit/s" in first


@pytest.mark.slow
def test_ten_clients_compose(tmp_path: Path) -> None:
    noise(tmp_path / "data", train=4, test=2)
    for point in (p for p in study.points(seeds=(51,)) if p.method == "adc"):
        config = compose(point.overrides(data=str(tmp_path / "data"), weights=None))
        network = config.network_config
        assert config.clients == 10 and network is not None and network.flops == [2.5e9, 4e10]
        assert (network.round_deadline_s is not None) == (study.mode_of(point) == "deadline")
        assert config.rounds == (32 if study.mode_of(point) == "fedbuff" else 16)


def test_the_page_says_what_the_rows_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert command.main(["time_to_accuracy", "--list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "20 of 20 done"
    monkeypatch.setattr(study, "BANDWIDTHS", study.BANDWIDTHS[16:18])
    rows = study.gather(study.points(), Results(command.HOME), paper=Results(tmp_path))
    page = (command.HOME / "README.md").read_text()
    for network, called in (("lte", "LTE"), ("wifi", "WiFi")):
        for setting in study.TEN:
            own = rows[(rows.network == network) & (rows.setting == setting)].sort_values("seed")
            told = [
                f"{', '.join(f'{seconds / 60:.1f}' for seconds in of.seconds)} min, {of.joules.mean() / 1e3:.1f} kJ"
                for of in (own[own.method == method] for method in ("base", "adc"))
            ]
            assert any(
                line.startswith(f"| {called}, ") and setting in line and line.endswith(f" | {told[0]} | {told[1]} |")
                for line in page.splitlines()
            ), (called, setting, told)
    [line] = [line for line in study.table(rows).splitlines() if line.startswith("synchronous, ")]
    assert "adc 0.2 is there before base up to 3.98 Mbit/s" in line and "ADC is ahead up to 4 Mbit/s" in page
