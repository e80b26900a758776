"""The HTML page: complete, self-contained, honest about what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_runs import clients_table, config, make_run, partition_table, rounds_table, summary_of, write_rounds

from flsplit.report import tables
from flsplit.report.cli import write_report
from flsplit.report.curves import mean_curve
from flsplit.report.groups import groups
from flsplit.report.runs import ReportError, find_runs, load_run


class _Page(HTMLParser):
    """The page as a browser's parser sees it: its text, its links, and whether its tags are balanced."""

    VOID = ("meta", "br", "wbr", "link", "img")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: dict[str, int] = {}
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def row(self, label: str) -> str:
        """What follows `label` in the first table."""
        return self.text.split(label, 1)[1][:400]


def page_of(tmp_path: Path, *runs: Path) -> _Page:
    out = tmp_path / "page.html"
    write_report(runs, out)
    return _Page(out.read_text(encoding="utf-8"))


def test_a_run_with_its_numbers(tmp_path: Path) -> None:
    rounds = rounds_table(12)
    summary = summary_of(rounds, final_test_accuracy=0.81234, best_test_accuracy=0.83456, status="budget")
    page = page_of(tmp_path, make_run(tmp_path / "my_run", rounds=rounds, summary=summary))
    assert not page.open
    result = page.row("my_run")
    for told in ("budget", "12 / 12", "81.23", "83.46", "0.102", "48", "47", "24", "16,800", "812", "cpu"):
        assert f"\n{told}\n" in result, told
    for told in ("digits", "vit_micro", "adc ratio=0.1", "splitfed_v1", "dirichlet alpha=0.3"):
        assert f"\n{told}\n" in page.text, told
    assert page.tags["figure"] == 6  # accuracy three times, loss twice, the partition
    for axis in ("test accuracy (%)", "activations and gradients, both ways (megabits)", "test loss (nats)"):
        assert axis in page.text


@pytest.mark.slow
def test_the_page_needs_nothing_beside_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", partition=partition_table(200, 100), clients=clients_table(2, 200))
    out = tmp_path / "page.html"
    write_report([run], out)
    html = out.read_text(encoding="utf-8")
    page = _Page(html)
    assert page.links, "the heat map is an embedded image"
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "script" not in page.tags
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert str(tmp_path) not in html


@pytest.mark.slow
def test_every_reference_inside_the_page_is_met(tmp_path: Path) -> None:
    html_path = tmp_path / "page.html"
    write_report([make_run(tmp_path / "a"), make_run(tmp_path / "b", config(seed=1))], html_path)
    html = html_path.read_text(encoding="utf-8")
    used = set(re.findall(r'xlink:href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used
    assert used <= set(re.findall(r'id="([^"]+)"', html))


@pytest.mark.slow
def test_names_are_escaped(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    settings = config(dataset={"name": nasty}, model={"name": "a & b <i>"})
    table = pd.DataFrame({"client": [0, 0], "label": ["<b>cat", "$dog$ & _x"], "count": [3, 4]})
    summary = summary_of(rounds_table(12), status="<u>odd", device='"><img src=x>')
    run = make_run(tmp_path / "<em>run", settings, partition=table, summary=summary)
    page = page_of(tmp_path, run)
    assert not {"script", "i", "b", "u", "em", "img"} & set(page.tags)
    for told in (nasty, "a & b <i>", "<b>cat", "$dog$ & _x", "<u>odd", '"><img src=x>', "<em>run"):
        assert told in page.text, told


@pytest.mark.slow
def test_a_sweep_is_found_below_its_folder_in_order(tmp_path: Path) -> None:
    for job in (10, 2, 0):
        make_run(tmp_path / "sweep" / "day" / str(job), config(seed=job))
    (tmp_path / "sweep" / ".hydra").mkdir()
    (tmp_path / "sweep" / "config.yaml").write_text("not: a run")
    found = find_runs([tmp_path / "sweep", tmp_path / "sweep" / "day" / "2"])
    assert [run.name for run in found] == ["0", "2", "10"]
    page = page_of(tmp_path, tmp_path / "sweep")
    assert page.text.index("seed 0") < page.text.index("seed 2") < page.text.index("seed 10")
    assert "3 runs" in page.text


@pytest.mark.slow
def test_an_interrupted_run_reports_its_rounds_so_far(tmp_path: Path) -> None:
    rounds = rounds_table(7, eval_every=3)
    page = page_of(tmp_path, make_run(tmp_path / "cut_off", rounds=rounds, summary=False))
    result = page.row("cut_off")
    assert "\nunfinished\n" in result
    assert "\n7 / 12\n" in result
    assert f"\n{100 * rounds['test_accuracy'][5]:.2f}\n" in result
    assert "\n28\n" in result  # megabits up in seven rounds


@pytest.mark.slow
def test_a_run_cut_off_before_its_first_round(tmp_path: Path) -> None:
    run = make_run(tmp_path / "early", summary=False)
    (run / "rounds.parquet").unlink()
    (run / "clients.parquet").unlink()
    page = page_of(tmp_path, run)
    assert "\n0 / 12\n" in page.row("early")
    assert "No round has been evaluated." in page.text
    assert "10 clients, 5,000 samples of 10 labels" in page.text


@pytest.mark.slow
def test_null_columns_as_parquet_writes_them(tmp_path: Path) -> None:
    """FedAvg sends no activations and has no xi; a run without evaluation has columns of nulls only."""
    rounds = rounds_table(3).assign(uplink_bits=0, downlink_bits=0, xi=None, test_loss=None)
    evaluated = make_run(
        tmp_path / "whole",
        config(strategy={"name": "fedavg"}),
        rounds=rounds,
        summary=summary_of(rounds, xi=None),
    )
    page = page_of(tmp_path, evaluated)
    assert "activations, gradients and models, both ways (megabits)" in page.text
    assert "activations and gradients, both ways" not in page.text  # nothing to draw against
    assert "test loss (nats)" not in page.text
    blind = rounds_table(3).assign(test_accuracy=None, test_loss=None)
    assert (
        "No round has been evaluated." in page_of(tmp_path, make_run(tmp_path / "b", rounds=blind, summary=False)).text
    )


@pytest.mark.slow
def test_further_metrics_of_the_last_evaluation(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain")
    assert "Further metrics" not in page_of(tmp_path, plain).text
    ece = np.where(np.arange(1, 13) % 5 == 0, np.arange(1, 13) / 100, np.nan)
    further = {"test_ece": ece, "test_link_accuracy": ece, "test_recall_<cat>": np.nan}
    rounds = rounds_table(12, eval_every=5).assign(**further)
    page = page_of(tmp_path, plain, make_run(tmp_path / "more", config(seed=1), rounds=rounds))
    _, more = page.text.split("Further metrics", 1)
    cells = [line for line in more.split("Settings")[0].splitlines() if line.strip()]
    assert cells[cells.index("run") :][:4] == ["run", "ece", "link_accuracy (%)", "recall_<cat>"]
    assert cells[-3:] == ["0.1", "10.00", "\N{EN DASH}"]  # round 10's
    assert cells.count("\N{EN DASH}") == 4


def test_a_seed_that_has_diverged_is_left_out_of_no_mean(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        rounds = rounds_table(3, seed=seed).assign(test_ece=[0.5, 0.25, np.nan])
        rounds.loc[2, "test_accuracy"] = np.nan if seed else 0.75
        summary = summary_of(rounds, final_test_accuracy=None if seed else 0.75)
        folder = make_run(tmp_path / str(seed), config(seed=seed), rounds=rounds, summary=summary)
        write_rounds(folder, rounds, evaluated=3)
        found.append(load_run(folder))
    [group] = groups(found, ["0", "1"])
    _, means = _Page(tables.seeds([group])).text.split("\n2\n")
    assert means.split()[0] == "\N{EN DASH}" and "±" in means
    assert "0.25" not in tables.metrics(found, ["0", "1"])
    line = mean_curve([(run.rounds["round"], run.rounds["test_accuracy"]) for run in found], group.style)
    assert line is not None and line.x.tolist() == [1, 2]


@pytest.mark.slow
def test_bits_far_apart_get_a_log_axis_and_large_ones_a_large_unit(tmp_path: Path) -> None:
    big = rounds_table(4, ratio=1.0)
    big[["uplink_bits", "downlink_bits"]] *= 1000
    runs = [
        make_run(tmp_path / "a", config(compressor={"name": "base"}), rounds=big),
        make_run(tmp_path / "b", rounds=rounds_table(4, ratio=0.1)),
    ]
    text = page_of(tmp_path, *runs).text
    assert "activations and gradients, both ways (gigabits, log scale)" in text
    assert "mathdefault" not in text


@pytest.mark.slow
def test_runs_share_the_picture_of_a_common_partition(tmp_path: Path) -> None:
    same = [make_run(tmp_path / f"same{seed}", config(seed=seed)) for seed in (0, 1)]
    page = page_of(tmp_path, *same)
    assert "The same in all runs." in page.text
    assert page.text.count("a client holds") == 1
    other = make_run(tmp_path / "other", config(seed=2), partition=partition_table(10, 10, seed=5))
    page = page_of(tmp_path, *same, other)
    assert "The same in all runs." not in page.text
    assert page.text.count("a client holds") == 2


@pytest.mark.slow
@pytest.mark.parametrize("clients", [1, 3])
def test_labels_have_the_names_of_classes(clients: int, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", partition=partition_table(clients, 3, seed=0))
    summary = json.loads((run / "summary.json").read_text())
    names = ["cat", "K\u00e4fer", "a_name_that_is_far_too_long"]
    (run / "summary.json").write_text(json.dumps(summary | {"classes": names}))
    text = page_of(tmp_path, run).text
    assert all(f"\n{name}\n" in text for name in (*names[:2], "a_name_that_is_\u2026"))


@pytest.mark.slow
def test_counts_are_written_into_a_small_partition(tmp_path: Path) -> None:
    table = pd.DataFrame({"client": [0, 0, 2], "label": [0, 3, 3], "count": [7001, 12, 345]})
    page = page_of(tmp_path, make_run(tmp_path / "run", partition=table))
    assert "\n7001\n" in page.text
    assert "\n345\n" in page.text
    assert "2 clients, 7,358 samples of 2 labels; a client holds 345 to 7,013" in page.text


@pytest.mark.slow
def test_client_accuracy_and_failures(tmp_path: Path) -> None:
    table = clients_table(5, 10, failed=((2, 3), (4, 3), (5, 7)))
    table.loc[(table["client"] == 1) & (table["round"] == 2), "test_accuracy"] = 0.25
    table.loc[(table["client"] == 1) & (table["round"] == 1), "test_accuracy"] = 0.99
    table.loc[(table["client"] == 2) & (table["round"] == 1), "test_accuracy"] = 0.75
    text = page_of(tmp_path, make_run(tmp_path / "run", clients=table)).text
    assert "mean 50.0% (dashed), 25.0% to 75.0%, 2 clients" in text
    failures = text.split("Clients that failed:")[1].split("How to cite")[0].split()
    assert failures == ["client", "failures", "rounds", "3", "2", "2,", "4", "7", "1", "5"]
    quiet = page_of(tmp_path, make_run(tmp_path / "quiet"))
    assert "Clients that failed" not in quiet.text
    assert "held-out" not in quiet.text


@pytest.mark.slow
@pytest.mark.parametrize("clients,labels", [(1, 10), (1, 100), (2, 2), (31, 21), (3000, 10)])
def test_partitions_of_any_shape_can_be_drawn(tmp_path: Path, clients: int, labels: int) -> None:
    table = partition_table(clients, labels, alpha=2.0)
    page = page_of(tmp_path, make_run(tmp_path / "run", partition=table))
    assert f"{50 * clients * labels:,} samples of {labels} labels" in page.text
    assert ("each column: mean of 3" in page.text) == (clients == 3000)


@pytest.mark.slow
def test_a_thousand_clients_and_a_hundred_labels_stay_small(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        rounds=rounds_table(500),
        partition=partition_table(1000, 100),
        clients=clients_table(100, 1000, held_out=True),
    )
    out = tmp_path / "page.html"
    write_report([run], out)
    assert out.stat().st_size < 5_000_000


@pytest.mark.slow
def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_report([run], tmp_path / "a.html")
    write_report([run], tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.write_text("old")
    run = make_run(tmp_path / "run", rounds=rounds_table(3).drop(columns=["xi", "seconds"]), summary=False)
    with pytest.raises(ReportError, match=r"rounds\.parquet: column xi, seconds missing"):
        write_report([run], out)
    assert out.read_text() == "old"


def test_many_rounds_are_thinned_but_keep_their_end(tmp_path: Path) -> None:
    from flsplit.report.curves import curve
    from flsplit.report.style import Style

    line = curve(pd.Series(np.arange(20_001)), pd.Series(np.arange(20_001) / 2), Style.of(0))
    assert line is not None
    assert len(line.x) <= 1000
    assert (line.x[0], line.x[-1], line.y[-1]) == (0, 20_000, 10_000)
