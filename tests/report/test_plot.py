"""Figures for papers: means and intervals by hand, groups that hide nothing, files as publishers want them."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from make_runs import config, make_run, rounds_table
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy import stats

import flsplit
from flsplit.errors import UserError
from flsplit.report.plot import draw, lines, save
from flsplit.report.plot_cli import main
from flsplit.report.runs import ReportError, find_runs, load_run

ADC = {"name": "adc", "rule": "sqrt"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ADC at two ratios with three seeds each, the last of them shorter, and one run of `base`."""
    home = tmp_path_factory.mktemp("runs")
    for ratio in (0.1, 0.4):
        for seed in (0, 1, 2):
            settings = config(seed=seed, compressor={**ADC, "ratio": ratio})
            table = rounds_table(9 if seed == 2 else 12, ratio=ratio, seed=seed)
            make_run(home / f"{ratio}-{seed}", settings, rounds=table)
    make_run(home / "base", config(compressor={"name": "base"}), rounds=rounds_table(12, ratio=1.0, eval_every=3))
    return home


def loaded(home: Path) -> list:  # type: ignore[type-arg]
    return [load_run(folder) for folder in find_runs([home])]


def test_means_and_intervals_by_hand(runs: Path) -> None:
    found = lines(loaded(runs), "bits", "test_accuracy")
    assert [(line.name, line.seeds, len(line.points)) for line in found] == [
        ("adc ratio=0.1", 3, 9), ("adc ratio=0.4", 3, 9), ("base", 1, 4),
    ]  # fmt: skip
    for line, ratio in zip(found, (0.1, 0.4)):
        tables = [rounds_table(12, ratio=ratio, seed=seed) for seed in (0, 1, 2)]
        for number in (1, 5, 9):
            row = line.points.loc[number]
            scores = [float(table.test_accuracy[number - 1]) for table in tables]
            bits = [int(table.loc[number - 1, ["uplink_bits", "downlink_bits", "sync_bits"]].sum()) for table in tables]
            low, high = stats.t.interval(0.95, 2, sum(scores) / 3, stats.sem(scores))
            assert (row.x, row.y) == pytest.approx((sum(bits) / 3, sum(scores) / 3))
            assert (row.low, row.high) == pytest.approx((low, high))
    assert found[2].points.low.isna().all()


def test_seconds_run_from_the_start(runs: Path) -> None:
    [*_, base] = lines(loaded(runs), "seconds", "train_loss")
    assert base.points.x.tolist() == [2.5 * number for number in range(1, 13)]


def test_a_line_hides_no_setting(runs: Path) -> None:
    with pytest.raises(ReportError, match=r"runs of one line differ in compressor\.ratio \(0\.1, 0\.4\); add it"):
        lines(loaded(runs), "bits", "test_accuracy", ["compressor"])
    both = lines(loaded(runs), "bits", "test_accuracy", ["compressor", "compressor.ratio", "strategy"])
    assert len(both) == 3
    with pytest.raises(ReportError, match="--by colour: the runs have no such setting"):
        lines(loaded(runs), "bits", "test_accuracy", ["colour"])


@pytest.mark.some
@pytest.mark.parametrize(("columns", "inches"), [(1, 3.4), (2, 7.0)])
def test_files(runs: Path, tmp_path: Path, columns: int, inches: float, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("pdf", "png", "svg"):
        out = tmp_path / f"figure.{kind}"
        assert main([str(runs), "--x", "rounds", "--out", str(out), "--columns", str(columns)]) == 0
        assert "adc ratio=0.1: 3 seeds, 9 points\n" in (said := capsys.readouterr().out) and f"wrote {out}" in said
    assert imread(tmp_path / "figure.png").shape[1] == pytest.approx(inches * 300, abs=1)
    pdf = (tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    again = tmp_path / "again.pdf"
    main([str(runs), "--x", "rounds", "--out", str(again), "--columns", str(columns)])
    assert again.read_bytes() == pdf


def test_a_legend_of_many_long_names_stands_below_and_in_full(tmp_path: Path) -> None:
    for number in range(6):
        one, two, four = number & 1, number & 2, number & 4  # no single key tells them apart
        own = {"clients": one + 2, "batch_size": two + 4, "optimizer_state": "reset" if four else "persist"}
        settings = config(seed=0, compressor={**ADC, "ratio": 0.1}, **own)
        make_run(tmp_path / f"{number}", settings, rounds=rounds_table(9, ratio=0.5, seed=number))
    found = loaded(tmp_path)
    with patch.object(Figure, "savefig", autospec=True) as saved:
        names = [line.name for line in save(found, tmp_path / "f.png", x="bits", y="test_accuracy")]
    assert max(map(len, names)) > 40  # two lines of a legend in one column
    drawing = saved.call_args.args[0]
    drawing.draw_without_rendering()
    [legend], [axes] = drawing.legends, drawing.axes
    assert [" ".join(text.get_text().split()) for text in legend.get_texts()] == names
    box, page, plot = legend.get_window_extent(), drawing.bbox, axes.get_tightbbox()
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= plot.y0
    assert plot.height > 0.5 * 0.62 * 3.4 * drawing.dpi  # which has left the lines their room


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 40])
def test_rounds_are_whole_numbers(rounds: int, tmp_path: Path) -> None:
    make_run(tmp_path / "run", rounds=rounds_table(rounds))
    axes = Figure().subplots()
    draw(lines(loaded(tmp_path), "round", "test_accuracy"), axes, "round", "test_accuracy")
    assert all(tick == int(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize(
    ("column", "factor", "label", "last"),
    [
        ("bits", 1, "sent, models included (megabits)", 62.0),
        ("bits", 1000, "sent, models included (gigabits)", 62.0),
        ("seconds", 1, "time (seconds)", 7.5),
        ("seconds", 3600, "time (hours)", 7.5),
        ("samples", 1, "samples", 4200),
    ],
)
def test_units_are_as_large_as_suits(tmp_path: Path, column: str, factor: int, label: str, last: float) -> None:
    sent = ["uplink_bits", "downlink_bits", "sync_bits"]
    table = rounds_table(3).assign(uplink_bits=30_000_000, downlink_bits=30_000_000, sync_bits=2_000_000)
    table[[*sent, "seconds"]] *= factor
    make_run(tmp_path / "run", rounds=table)
    axes = Figure().subplots()
    draw(lines(loaded(tmp_path), column, "test_accuracy"), axes, column, "test_accuracy")
    assert (axes.get_xlabel(), axes.get_ylabel()) == (label, "test accuracy (%)")
    assert axes.get_lines()[0].get_xdata()[-1] == pytest.approx(last)


def test_runs_without_a_column_that_others_have_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second", "third"):
        table = rounds_table(3)
        made = table if name == "first" else table.assign(test_link_accuracy=0.1)
        make_run(tmp_path / name, config(seed=len(name)), rounds=made)
    assert main([str(tmp_path), "--y", "test_link_accuracy", "--out", str(tmp_path / "f.png")]) == 2
    said = "first: without test_link_accuracy, which other runs have; leave such runs out"
    assert capsys.readouterr().err == f"flsplit-plot: {said}\n"
    found = flsplit.load(tmp_path)
    assert isinstance(found, flsplit.Runs)
    with pytest.raises(UserError, match=said):
        found.plot(Figure().subplots(), y="test_link_accuracy")


def test_an_interval_of_shares_ends_where_shares_do(tmp_path: Path) -> None:
    for seed in (0, 1):
        table = rounds_table(9, ratio=0.5, seed=seed).assign(test_accuracy=0.02 + 0.2 * seed)
        make_run(tmp_path / f"{seed}", config(seed=seed), rounds=table)
    axes = Figure().subplots()
    found = lines(loaded(tmp_path), "bits", "test_accuracy")
    draw(found, axes, "bits", "test_accuracy")
    assert found[0].points.low.min() < 0 and axes.collections[0].get_paths()[0].vertices[:, 1].min() == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out", "figure.jpg"], "--out figure.jpg must end in .pdf, .png, .svg"),
        (["--out", "no/such/folder/figure.pdf"], "cannot be written: No such file"),
        (["--out", "figure.pdf", "--y", "test_acuracy"], "did you mean test_accuracy?"),
        (["--out", "figure.pdf", "--columns", "3"], "argument --columns: invalid choice: "),
        ([], "required: --out"),
    ],
)
def test_mistakes_are_one_line(
    runs: Path, tmp_path: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([str(runs), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and line in said
    assert not list(tmp_path.iterdir())
