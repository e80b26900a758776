"""`flsplit.load`: one run as `flsplit.run` returns it, many as a table of what varied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from make_runs import config, make_run, rounds_table, summary_of, write_rounds
from matplotlib.figure import Figure

import flsplit
from flsplit.errors import UserError

KEYS = ["engine=inline", "clients=2", "rounds=2", "batch_size=8", "dataset.train_limit=40", "dataset.test_limit=10"]


@pytest.fixture(scope="module")
def folders(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: ADC at two ratios, and none."""
    home = tmp_path_factory.mktemp("runs")
    for name, keys in (
        ("a", ["compressor=adc", "compressor.ratio=0.2"]), ("b", ["compressor=adc", "compressor.ratio=0.4"]),
        ("c", ["compressor=base", "seed=5"]),
    ):  # fmt: skip
        flsplit.run([*KEYS, *keys, f"out={home / name}"])
    (home / "notes").mkdir()
    return home


def test_a_run_comes_back_as_it_was_returned(folders: Path) -> None:
    returned = flsplit.run([*KEYS, f"out={folders / 'again' / 'x'}"])
    loaded = flsplit.load(folders / "again" / "x")
    assert isinstance(loaded, flsplit.Run) and loaded.summary == returned.summary
    pd.testing.assert_frame_equal(loaded.rounds, returned.rounds)
    pd.testing.assert_frame_equal(loaded.clients, returned.clients)
    assert "final_test_accuracy" in loaded._repr_html_() and 5 < len(str(loaded).splitlines()) < 15


def test_many_are_a_table_of_what_varied(folders: Path) -> None:
    found = flsplit.load(str(folders / "[abc]"))
    assert isinstance(found, flsplit.Runs) and len(found) == 3
    table = found.table
    assert [Path(run).name for run in table.run] == ["a", "b", "c"]
    assert table.compressor.tolist() == ["adc", "adc", "base"]
    assert table["compressor.ratio"].tolist()[:2] == [0.2, 0.4] and table["compressor.ratio"].isna()[2]
    assert table.seed.tolist()[2] == 5
    assert not {"out", "clients", "batch_size"} & set(table)
    assert (table.status == "completed").all() and (table.rounds == 2).all()
    each = [flsplit.load(folders / name) for name in "abc"]
    assert table.uplink_bits.tolist() == [run.summary["uplink_bits"] for run in each if isinstance(run, flsplit.Run)]
    assert len(found.rounds) == 6 and found.rounds.groupby("run")["round"].max().tolist() == [2, 2, 2]
    assert found.rounds["compressor.ratio"].tolist()[:4] == [0.2, 0.2, 0.4, 0.4]
    assert [run.path.name for run in found] == ["a", "b", "c"] and "<table" in found._repr_html_()
    assert str(found).split()[:2] == ["run", "compressor"] and len(str(found).splitlines()) == 4
    listed = flsplit.load([folders / "a", folders / "c"])
    assert isinstance(listed, flsplit.Runs) and len(listed) == 2


def test_plots_take_axes_and_give_them(folders: Path) -> None:
    run, runs = flsplit.load(folders / "a"), flsplit.load(folders / "*")
    axes = Figure().subplots()
    assert isinstance(run, flsplit.Run) and run.plot(axes, x="bits", color="red") is axes
    [line] = axes.get_lines()
    sent = run.rounds[["uplink_bits", "downlink_bits", "sync_bits"]].sum(axis=1)
    scored = run.rounds.test_accuracy.notna()
    assert line.get_xdata().tolist() == pytest.approx((sent[scored] / 1e6).tolist())
    assert line.get_ydata().tolist() == pytest.approx((100 * run.rounds.test_accuracy[scored]).tolist())
    assert axes.get_xlabel() == "sent, models included (megabits)" and axes.get_ylabel() == "test accuracy (%)"
    axes = Figure().subplots()
    assert isinstance(runs, flsplit.Runs) and runs.plot(axes, y="train_loss") is axes
    labels = [line.get_label() for line in axes.get_lines()]
    assert len(set(labels)) == len(labels) and axes.get_legend() is not None
    with pytest.raises(UserError, match=r"^y must be one of .*got 'test_acuracy'.*test_accuracy"):
        run.plot(axes, y="test_acuracy")


@pytest.mark.slow
def test_what_cannot_be_read_is_one_line(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\*: no folder matches it$"):
        flsplit.load(str(tmp_path / "x*"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"e\*: no run lies in the folders, or below them, that match it$"):
        flsplit.load(str(tmp_path / "e*"))
    for nothing in ("", []):
        with pytest.raises(UserError, match=r"^load: name the folder of a run"):
            flsplit.load(nothing)
    for wrong in ("clients=2", [3]):
        with pytest.raises(UserError, match=r"^run: overrides are a list of texts, such as \[\"clients=4\"\], got"):
            flsplit.run(wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no such folder"):
        flsplit.load(tmp_path / "x")
    with pytest.raises(UserError, match="no run here"):
        flsplit.load(tmp_path)
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("config.yaml", "rounds.parquet", "clients.parquet", "partition.parquet"):
        (cut / name).write_bytes((folders / "a" / name).read_bytes())
    with pytest.raises(UserError, match="has not ended"):
        flsplit.load(cut)
    unfinished = flsplit.load([cut])
    assert isinstance(unfinished, flsplit.Runs) and unfinished.table.status.tolist() == ["unfinished"]
    (cut / "rounds.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        flsplit.load([cut])


def test_a_model_that_has_diverged_has_no_final_accuracy(tmp_path: Path) -> None:
    """Not that of an evaluation before, either; a round that was not evaluated hides none."""
    rounds = rounds_table(4)
    rounds.loc[2:, "test_accuracy"] = np.nan
    ended = make_run(tmp_path / "ended", rounds=rounds, summary=summary_of(rounds, final_test_accuracy=None))
    diverged, waiting = (make_run(tmp_path / name, rounds=rounds, summary=False) for name in ("diverged", "waiting"))
    write_rounds(diverged, rounds, evaluated=3)
    write_rounds(waiting, rounds, evaluated=2)
    found = flsplit.load([ended, diverged, waiting])
    assert isinstance(found, flsplit.Runs)
    final, best = found.table.final_test_accuracy, found.table.best_test_accuracy
    assert final.isna().tolist() == [True, True, False] and final[2] == rounds.test_accuracy[1]
    assert best.tolist() == [rounds.test_accuracy.max()] * 3


def test_a_run_that_is_named_twice_is_counted_once(tmp_path: Path) -> None:
    for name in "ab":
        make_run(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    pattern = str(tmp_path / "*")
    for where in (tmp_path, pattern, [pattern, tmp_path / "b"], [tmp_path, tmp_path / "b"], [tmp_path / "a", pattern]):
        found = flsplit.load(where)
        assert isinstance(found, flsplit.Runs) and [Path(run).name for run in found.table.run] == ["a", "b"]


def test_lines_on_the_same_axes_share_a_unit(tmp_path: Path) -> None:
    small, large = rounds_table(3), rounds_table(3)
    large[["uplink_bits", "downlink_bits", "sync_bits"]] *= 100
    folders = [make_run(tmp_path / name, rounds=rounds) for name, rounds in (("a", small), ("b", large))]
    both, one, runs = Figure().subplots(), Figure().subplots(), flsplit.load(tmp_path)
    assert isinstance(runs, flsplit.Runs) and "gigabits" in runs.plot(both, x="bits").get_xlabel()
    for folder in folders:
        run = flsplit.load(folder)
        assert isinstance(run, flsplit.Run) and "megabits" in run.plot(one, x="bits").get_xlabel()
    for axes, size in ((both, 1e9), (one, 1e6)):
        found = [line.get_xdata()[-1] for line in axes.get_lines()]
        ends = [rounds.iloc[-1][["uplink_bits", "downlink_bits", "sync_bits"]].sum() for rounds in (small, large)]
        assert found == pytest.approx([end / size for end in ends])


def test_folders_of_a_sweep_are_in_the_order_of_its_jobs(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        make_run(tmp_path / f"{number}", config(seed=number))
    for where in (tmp_path, tmp_path / "*"):
        found = flsplit.load(where)
        assert isinstance(found, flsplit.Runs) and found.table.seed.tolist() == [0, 2, 10]


def test_a_key_that_is_called_like_a_result_has_a_column_of_its_own(tmp_path: Path) -> None:
    for asked in (3, 5):
        make_run(tmp_path / f"{asked}", config(rounds=asked), rounds=rounds_table(3))
    found = flsplit.load(str(tmp_path / "*"))
    assert isinstance(found, flsplit.Runs) and found.table.columns.is_unique and found.rounds.columns.is_unique
    assert found.table["config.rounds"].tolist() == [3, 5] and found.table["rounds"].tolist() == [3, 3]


def test_lists_may_differ(tmp_path: Path) -> None:
    for metrics in (["accuracy"], ["accuracy", "top5"]):
        make_run(tmp_path / metrics[-1], config(metrics=metrics), rounds=rounds_table(3))
    found = flsplit.load(str(tmp_path / "*"))
    assert isinstance(found, flsplit.Runs)
    assert found.rounds.groupby("metrics")["round"].max().to_dict() == {"[accuracy]": 3, "[accuracy,top5]": 3}


@pytest.mark.slow
def test_the_models_that_a_run_ended_with_score_as_it_says(folders: Path) -> None:
    """By a plain loop over the test images."""
    run = flsplit.load(folders / "a")
    assembly, client, server = flsplit.trained(folders / "a")
    images, labels = next(assembly.pipeline.eval_batches(assembly.dataset.test, None, 10))
    with torch.no_grad():
        right = server.model(client.model(images)[0]).argmax(1) == labels
    assert isinstance(run, flsplit.Run)
    assert right.double().mean() == run.summary["final_test_accuracy"]
    assert client.stages.compressor.name == "adc"
    with pytest.raises(UserError, match="there is no checkpoint of a run here"):
        flsplit.trained(folders / "notes")


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        ["strategy=splitfed_v3"],
        ["strategy.buffers=personal", "model=timm", "model.name=resnet10t", "model.image_size=32", "compressor=base"],
    ],
    ids=["v3", "statistics"],
)
def test_models_of_their_own_are_those_of_a_client(keys: list[str], tmp_path: Path) -> None:
    small = ["engine=inline", "clients=2", "rounds=2", "dataset.train_limit=80", "dataset.test_limit=40", "lr=0.01"]
    run = flsplit.run([*small, *keys, "batch_size=8", f"out={tmp_path / 'run'}"])
    with pytest.raises(UserError, match=r"its clients have models of their own; name one, such as client=0, of 0 to 1"):
        flsplit.trained(tmp_path / "run")
    with pytest.raises(UserError, match=r"client must be one of 0 to 1, got 2"):
        flsplit.trained(tmp_path / "run", client=2)
    found = []
    for one in range(2):
        assembly, client, server = flsplit.trained(tmp_path / "run", client=one)
        images, labels = next(assembly.pipeline.eval_batches(assembly.dataset.test, None, 40))
        with torch.no_grad():
            found.append((server.model(client.model(images)[0]).argmax(1) == labels).double().mean().item())
    assert run.summary["final_test_accuracy"] == pytest.approx(sum(found) / 2, abs=1e-12)
