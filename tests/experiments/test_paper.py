"""The paper's runs: what they are, that they are run once, and what is drawn and said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.cut import cut_after
from scipy.stats import kendalltau

from experiments.bench.images import noise
from experiments.paper import __main__ as paper
from experiments.paper import tables
from experiments.paper.clusters import rollout
from experiments.paper.compare import compare, tau
from experiments.paper.protocol import METHODS, RULES, Choice, points
from experiments.paper.reported import reported
from experiments.point import Point
from experiments.results import COLUMNS, Results
from flsplit.compose import compose

SHORT = [
    "--scale", "reduced", "--set", "model.name=vit_micro", "--set", "model.pretrained=false", "--set",
    "model.image_size=8", "--set", "dataset.test_limit=20", "--set", "budget.base_epochs=0.6", "--set", "batch_size=32",
]  # fmt: skip


def a_point(**more: object) -> Point:
    values = {"scale": "full", "dataset": "cifar100", "model": "deit_tiny", "method": "adc", "seed": 1, **more}
    return Point(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ratio", "rule", "epochs"),
    [(0.5, "sqrt", 20), (0.4, "sqrt", 25), (0.3, "pow_1_5_4_5", 33), (0.1, "sqrt", 101), (0.1, "release2026", 57)],
)
def test_the_budget_buys_the_epochs_of_the_protocol(ratio: float, rule: str, epochs: int) -> None:
    assert abs(a_point(value=ratio, rule=rule).rounds() - epochs) <= 1


def test_a_point_is_the_protocol_on_the_command_line(tmp_path: Path) -> None:
    noise(tmp_path / "data", train=4, test=2)
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    point = a_point(method="topk", value=0.2, seed=51, scale="reduced", options=("model.split_point=5",))
    config = compose(point.overrides(data=str(tmp_path / "data"), weights=str(weights)))
    assert (config.clients, config.rounds, config.budget.base_epochs, config.batch_size) == (1, None, 10, 128)
    assert (config.lr, config.augment, config.partition["name"], config.precision) == (1e-4, "paper", "iid", "fp32")
    assert (config.dataset.train_limit, config.dataset.test_limit, config.model.image_size) == (2500, None, 96)
    assert (config.compressor["rate"], config.model.split_point, config.seed) == (0.2, 5, 51)
    assert config.eval_every == point.rounds() // 10
    full = compose(a_point(method="base").overrides(data=str(tmp_path / "data"), weights=str(weights)))
    assert (full.dataset.train_limit, full.model.image_size, full.model.split_point) == (None, 224, 3)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("fig1", 34),
        ("fig4", 4 * 34),
        ("fig3", 200),
        ("fig5", 16),
        ("fig6", 30),
        ("fig7", 60),
        ("fig8", 2),
        ("table2", 18),
    ],
)
def test_each_figure_has_its_runs(name: str, count: int) -> None:
    found = points(name, Choice(seeds=(1,)))
    assert len(found) == len({point.slug for point in found}) == count
    for point in found:
        assert 0 < point.xi_nominal() <= 1 and point.rounds() >= 10


def test_every_reported_point_is_among_them() -> None:
    found = points("fig4", Choice(seeds=(1,)))
    ours = {(p.dataset, p.model, p.method, p.parameter) for p in found}
    theirs = reported().query("figure == 'fig4'").fillna({"parameter": ""})
    for row in theirs.itertuples():
        parameter = "" if row.method == "base" else f"{float(row.parameter):g}"
        assert (row.dataset, row.model, row.method, parameter) in ours


def test_a_choice_narrows() -> None:
    choice = Choice(scale="reduced", methods=("base", "adc", "c3sl"), ratios=(0.1,), rules=RULES, seeds=(1,))
    assert [(p.method, p.value, p.rule) for p in points("fig4", choice)] == [
        ("base", None, None), *(("adc", 0.1, rule) for rule in RULES), ("c3sl", 8, None),
    ]  # fmt: skip


def test_methods_that_the_paper_does_not_compare_are_there_where_asked_for() -> None:
    choice = Choice(scale="reduced", methods=("base", "fedlite", "splitfc"), ratios=(0.1,), seeds=(1,))
    found = points("fig4", choice)
    assert [(p.method, p.value) for p in found] == [("base", None), ("fedlite", 16), ("splitfc", 0.1)]
    assert all(0 < p.xi_nominal() <= 1 and p.rounds() >= 10 for p in found)
    assert "compressor.codewords=16" in found[1].overrides(data=None, weights=None)


@pytest.fixture
def short(tmp_path: Path) -> list[str]:
    noise(tmp_path / "data", train=64, test=20)
    folders = {name: str(tmp_path / name) for name in ("runs", "results", "figures", "data")}
    return [*SHORT, *(word for name, path in folders.items() for word in (f"--{name}", path))]


@pytest.mark.slow
def test_what_is_missing_is_run_once_drawn_and_compared(
    short: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fig4", "--methods", "base,adc", "--ratios", "0.3", *short]
    assert paper.main(command) == 0
    assert "run 2 of 2" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "results" / "results.csv")
    assert list(rows.columns) == COLUMNS and rows.method.tolist() == ["base", "adc"]
    assert rows.xi_actual[0] == 1 and 0.2 < rows.xi_actual[1] < 0.3 and rows.xi_nominal[1] == 0.3
    assert (rows.final_test_accuracy.between(0, 1)).all() and (rows.samples >= 64).all()
    [picture] = (tmp_path / "figures").iterdir()
    assert picture.name == "fig4-cifar100-deit_tiny-reduced.png" and picture.stat().st_size > 10_000

    assert paper.main([word for word in command if word != str(tmp_path / "data") and word != "--data"]) == 0
    assert "nothing to run" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "results" / "results.csv")) == 2

    shown = ["fig4", *short, "--draw"]
    assert paper.main([*shown, "--methods", "base,topk", "--figures", str(tmp_path / "drawn")]) == 0  # top-k is not run
    assert "drew" in capsys.readouterr().out and len(list((tmp_path / "drawn").iterdir())) == 1
    assert paper.main([*shown, "--methods", "c3sl", "--figures", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == "experiments.paper: fig4: no rows yet\n" and not (tmp_path / "none").exists()

    assert paper.main(["fig8", "--ratios", "0.3", *short]) == 0  # looks into the model that has just been trained
    assert (tmp_path / "figures" / "fig8-cifar100-deit_tiny-reduced.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(short: list[str], tmp_path: Path) -> None:
    command = ["fig4", "--methods", "adc", "--ratios", "0.1", *short]
    assert paper.main([*command, "--results", str(tmp_path / "whole"), "--runs", str(tmp_path / "other")]) == 0
    with cut_after(1):
        assert paper.main(command) == 130
    assert paper.main(command) == 0
    whole, resumed = (pd.read_csv(tmp_path / f / "results.csv") for f in ("whole", "results"))
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), resumed.drop(columns="seconds"))
    curves = [pd.read_csv(next((tmp_path / f / "curves").iterdir())) for f in ("whole", "results")]
    assert len(curves[0]) > 2
    pd.testing.assert_frame_equal(*curves)


def test_the_grid_is_scored_on_the_held_back_fifth(tmp_path: Path) -> None:
    class Run:
        summary = dict.fromkeys(["xi", "samples", "uplink_bits", "downlink_bits", "sync_bits", "seconds"], 1)
        summary |= {"final_test_accuracy": 0.1, "best_test_accuracy": 0.2, "device": "cpu"}
        rounds = pd.DataFrame(
            [[1, 1, 1, 1, 0, 1.0, 0.5, 0.1]],
            columns=[
                "round",
                "samples",
                "uplink_bits",
                "downlink_bits",
                "sync_bits",
                "xi",
                "train_loss",
                "test_accuracy",
            ],
        )
        clients = pd.DataFrame({"test_accuracy": [0.7, 0.6]})

    [point, *_] = points("fig3", Choice(seeds=(1,)))
    results = Results(tmp_path)
    results.add("fig3", point, Run(), "abc")  # type: ignore[arg-type]
    row = results.row(point)
    assert row is not None and (row.final_test_accuracy, row.best_test_accuracy) == (0.6, 0.7)


def rows_of(*found: tuple[Point, float]) -> pd.DataFrame:
    return pd.DataFrame([
        dict.fromkeys(COLUMNS, 0) | p.key | {
            "experiment": "fig4", "rule": p.rule or "", "final_test_accuracy": accuracy, "xi_actual": 0.1,
            "device": "a GPU", "commit": "abc",
        }
        for p, accuracy in found
    ])  # fmt: skip


def test_comparison_with_what_is_published() -> None:
    ours = rows_of(
        (a_point(method="base"), 0.83), (a_point(value=0.1, rule="sqrt"), 0.76), (a_point(value=0.2, rule="sqrt"), 0.8),
        (a_point(value=0.1, rule="release2026"), 0.78), (a_point(value=0.1, rule="sqrt", seed=2), 0.77),
        (a_point(value=0.1, rule="sqrt", options=("batch_size=16",)), 0.5),
        (a_point(value=0.1, rule="sqrt", options=("precision=bf16",)), 0.7),
    )  # fmt: skip
    lines = compare(ours, "full").splitlines()
    [base] = [line for line in lines if " base   " in line]
    assert base.split()[3:9] == ["82.53", "83.00", "-", "+0.47", "yes", "+0.00"]
    assert base.endswith("full, 1 seed, fp32, a GPU, abc")
    [adc] = [line for line in lines if " 0.1  " in line and "sqrt" in line and "fp32" in line]
    # Half of Student's interval for two values is 12.706 times half their distance; `base` has one of the two seeds.
    assert adc.split()[5:12] == ["77.16", "76.50", "6.35", "-0.66", "yes", "-5.37", "-7.00"]
    assert "2 seeds" in adc
    [other] = [line for line in lines if "batch_size=16" in line]
    assert other.split()[6:10] == ["-", "50.00", "-", "-"]  # the paper has no such point
    [half] = [line for line in lines if "bf16" in line]
    assert half.split()[6:12] == ["70.00", "-", "-7.16", "no", "-5.37", "-"]  # and no `base` in bf16 to set it against
    [fits] = [line for line in lines if line.startswith("Mean distance")]
    assert fits.endswith("fp32, points, at 0.1 (seed 1), by rule: release2026 0.84; sqrt 1.16. Nearest: release2026.")
    assert "no rows of reduced scale yet" in compare(ours, "reduced")
    assert "cannot be said" in compare(ours[:3], "full")


def test_at_a_smaller_scale_the_order_and_what_is_lost_are_compared() -> None:
    def at(method: str, value: float | None, accuracy: float, **more: object) -> tuple[Point, float]:
        return a_point(method=method, value=value, scale="medium", **more), accuracy

    ours = rows_of(
        at("base", None, 0.6), at("adc", 0.1, 0.5, rule="sqrt"), at("adc", 0.1, 0.3, rule="release2026"),
        at("topk", 0.1, 0.4), at("c3sl", 8, 0.45), at("adc", 0.3, 0.55, rule="sqrt"), at("topk", 0.3, 0.5),
    )  # fmt: skip
    text = compare(ours, "medium")
    [row] = [line for line in text.splitlines() if "sqrt" in line and " 0.1 " in line and "Kendall" not in line]
    assert row.split()[5:12] == ["77.16", "50.00", "-", "-", "-", "-5.37", "-10.00"]
    # adc > topk > c3sl is published: of three pairs at 0.1 one is the other way round, and the one at 0.3 agrees.
    assert "ADC by sqrt: Kendall's tau with the published order +0.50 over 4 pairs" in text
    assert "same ratio (0.1, seed 1: adc > c3sl > topk; 0.3, seed 1: adc > topk)" in text
    assert "ADC by release2026: Kendall's tau with the published order -1.00 over 3 pairs" in text
    assert "10,000 training images, so not to be compared in height" in text and "Nearest" not in text


def test_the_order_is_that_of_seeds_that_all_methods_have() -> None:
    def order(*found: tuple[str, float, int, float]) -> str:
        rules = {"adc": "sqrt"}
        rows = [
            (a_point(method=method, value=value, seed=seed, scale="medium", rule=rules.get(method)), accuracy)
            for method, value, seed, accuracy in found
        ]
        return compare(rows_of(*rows), "medium").splitlines()[-1]

    one = [("adc", 0.1, 1, 0.4), ("topk", 0.1, 1, 0.3), ("c3sl", 8, 1, 0.2)]  # as published
    low = ("adc", 0.1, 2, 0.05)  # a seed on which all are low, and only ADC has been run
    assert "+1.00 over 3 pairs" in order(*one, low) and "(0.1, seed 1: adc > topk > c3sl)" in order(*one, low)
    both = order(*one, low, ("topk", 0.1, 2, 0.1), ("c3sl", 8, 2, float("nan")))
    assert "+1.00 over 3 pairs" in both and "(0.1, seeds 1, 2: adc > topk > c3sl (diverged))" in both
    assert "Kendall" not in order(low, ("topk", 0.1, 1, 0.3))  # no seed in common


def test_a_mean_of_which_a_seed_diverged_is_none(tmp_path: Path) -> None:
    ours = rows_of(
        (a_point(method="base"), 0.83), (a_point(method="base", seed=2), 0.83), (a_point(value=0.1, rule="sqrt"), 0.76),
        (a_point(value=0.1, rule="sqrt", seed=2), float("nan")), (a_point(value=0.2, rule="sqrt"), 0.8),
    )  # fmt: skip
    lines = compare(ours, "full").splitlines()
    [adc] = [line for line in lines if " 0.1  " in line and "sqrt" in line]
    assert adc.split()[5:12] == ["77.16", "diverged", "-", "-", "-", "-5.37", "-"]
    below = compare(ours.assign(final_test_accuracy=[0.83, None, 0.76, 0.7, 0.8]), "full").splitlines()
    [adc] = [line for line in below if " 0.1  " in line and "sqrt" in line]
    assert adc.split()[6] == "73.00" and adc.split()[11] == "-"  # one of the two that it is set against diverged

    ours.to_csv(tmp_path / "results.csv", index=False)
    wanted = [a_point(value=0.1, rule="sqrt", seed=seed) for seed in (1, 2)]
    assert "diverged (0." in tables.table2(Results(tmp_path), wanted)


@pytest.mark.parametrize("length", [2, 5, 9])
def test_tau_is_that_of_scipy(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    one, other = (torch.randperm(length, generator=generator).tolist() for _ in range(2))
    assert tau(one, other) == pytest.approx(kendalltau(one, other).statistic)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda rows: pd.concat([rows, rows.tail(1)]), "lines 4 and 5 are of the same run; remove one of them"),
        (lambda rows: pd.concat([rows, rows.head(1)]), "lines 2 and 5 are of the same run; remove one of them"),
        (lambda rows: rows.drop(columns="seed"), "the column seed is missing; the columns are experiment, scale,"),
        (lambda rows: pd.concat([rows, rows.seed], axis=1), "several columns seed; give each a name of its own"),
        (
            lambda rows: rows.assign(final_test_accuracy=[0.5, 51, 0.5]),
            "line 3: final_test_accuracy must be a fraction between 0 and 1, got 51",
        ),
        (lambda rows: rows.assign(samples=["a", 1, 2]), "line 2: samples must be a number, got a"),
        (lambda rows: rows.assign(seed=[1, None, 2]), "line 3: seed must be a number, got nan"),
    ],
)
def test_a_table_that_was_edited_by_hand_is_one_line(
    change: Callable[[pd.DataFrame], pd.DataFrame], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(
        (a_point(method="base"), 0.8), (a_point(value=0.1, rule="sqrt"), 0.7),
        (a_point(value=0.1, rule="sqrt", seed=2), 0.7),
    )  # fmt: skip
    change(rows).to_csv(tmp_path / "results.csv", index=False)
    assert paper.main(["compare", "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"experiments.paper: {tmp_path / 'results.csv'}") and said.count("\n") == 1
    assert line in said


def test_what_is_no_table_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"\xff\xfe\x00", b'a,b\n1,2,3\n"'):
        (tmp_path / "results.csv").write_bytes(content)
        assert paper.main(["compare", "--results", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("experiments.paper: ") and said.count("\n") == 1


def test_every_committed_table_can_be_read() -> None:
    for folder in ("paper", "study"):
        assert len(Results(Path(paper.__file__).parents[1] / folder).table()) > 10


def test_what_changes_numbers_is_not_of_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert paper.main(["fig4", "--machine", "precision=bf16", *folders]) == 2
    assert "precision may change the numbers, so it is part of the row: give it with --set" in capsys.readouterr().err


def test_precision_is_a_column_of_its_own() -> None:
    plain, half = a_point(method="base"), a_point(method="base", options=("precision=bf16",))
    assert (plain.precision, half.precision) == ("fp32", "bf16") and plain.parameter == half.parameter == ""
    assert plain.slug == "full-cifar100-deit_tiny-base-s1" and half.slug == "full-cifar100-deit_tiny-base-bf16-s1"
    assert "precision=bf16" in half.overrides(data=None, weights=None)
    assert a_point(method="base", scale="study-cpu").slug == "study-cpu-cifar100-deit_tiny-base-s1"


@pytest.mark.parametrize(("scale", "count"), [("medium", 13), ("reduced", 11), ("full", 138)])
def test_the_rows_of_a_scale_come_in_their_order(scale: str, count: int) -> None:
    found = points("rows", Choice(scale=scale, seeds=(1,)))
    assert len(found) == count and found[0].method == "base"
    assert (found[1].method, found[1].value, found[1].rule) == ("adc", 0.1, "sqrt")
    choice = Choice(scale=scale, seeds=(1,), methods=("topk",), ratios=(0.1,))
    assert {(p.method, p.value) for p in points("rows", choice)} == {("topk", 0.1)}


def test_table1_has_every_method_and_the_ratios_of_the_paper() -> None:
    text = tables.table1("full")
    prices = {tuple(line.split()[:2]): line.split()[2:] for line in text.splitlines()[2:-1]}
    assert {name for name, _ in prices} == {*METHODS, *RULES} - {"base", "sqrt"}
    assert prices["adc", "0.1"] == ["0.1000", "0.0984", "0.0984", "0.0984", "0.0984"]  # T=40, k=62 of 128, 197
    assert prices["release2026", "0.1"][3] == "0.1745" and prices["pow_1_5_4_5", "0.5"][3] == "0.4974"


def test_rollout_sums_to_one_and_is_the_product_of_the_maps() -> None:
    import timm

    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=12, num_heads=3).eval()
    images = torch.randn(2, 3, 32, 32)
    found = rollout(vit, images)
    assert found.shape == (2, 5)
    torch.testing.assert_close(found.sum(1), torch.ones(2))

    maps, x = [], vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    for block in vit.blocks:
        q, k, _ = block.attn.qkv(block.norm1(x)).reshape(2, 5, 3, 3, 4).unbind(2)
        maps.append(torch.einsum("bqhd,bkhd->bhqk", q, k).div(2).softmax(-1).mean(1))
        x = block(x)
    mixed = [(attention + torch.eye(5)) / 2 for attention in maps]
    torch.testing.assert_close(found, (mixed[1] @ mixed[0])[:, 0])


def test_a_comparison_without_a_scale_shows_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compared(*more: str) -> str:
        assert paper.main(["compare", "--results", str(tmp_path), *more]) == 0
        return capsys.readouterr().out.strip()

    assert compared() == compared("--scale", "full") == "no rows of full scale yet"
    rows = rows_of((a_point(method="base", scale="reduced"), 0.4), (a_point(value=0.1, rule="sqrt"), 0.76))
    rows[rows.scale == "reduced"].to_csv(tmp_path / "results.csv", index=False)
    assert compared() == compared("--scale", "reduced") and " 40.00 " in compared()
    rows.to_csv(tmp_path / "results.csv", index=False)
    assert compared() == "\n\n".join(compared("--scale", scale) for scale in ("full", "reduced"))
    assert compared("--scale", "medium") == "no rows of medium scale yet"
