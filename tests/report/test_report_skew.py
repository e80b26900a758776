"""Measures of skew: hand-worked values, slow loops, SciPy, and the page that shows them."""

from __future__ import annotations

import itertools
import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_runs import config, make_run, partition_table
from scipy.spatial.distance import pdist
from scipy.stats import entropy

import flsplit
from flsplit.data.skew import (
    Spread,
    effective_classes,
    gini,
    global_distance,
    label_entropy,
    label_shares,
    pairwise_distance,
    skew,
)
from flsplit.report.cli import write_report

# Three clients and four labels. The labels' shares in the whole are 8, 4, 2 and 2 sixteenths.
SMALL = np.array([[4, 0, 0, 0], [2, 2, 0, 0], [2, 2, 2, 2]])


def as_table(counts: np.ndarray) -> pd.DataFrame:
    client, label = np.indices(counts.shape).reshape(2, -1)
    return pd.DataFrame({"client": client, "label": label, "count": counts.ravel()})


def uneven(clients: int, labels: int, seed: int) -> np.ndarray:
    """Counts with many zeros and clients from one sample up."""
    rng = np.random.default_rng(seed)
    sizes = 1 + (rng.pareto(1.0, clients) * 5).astype(int).clip(0, 3000)
    return np.stack([rng.multinomial(size, rng.dirichlet([0.4] * labels)) for size in sizes])


def test_hand_worked_label_entropy() -> None:
    # One label: 0. Two of four labels: log 2 / log 4. All four: 1.
    assert label_entropy(SMALL) == pytest.approx([0, 0.5, 1], abs=1e-15)


def test_hand_worked_effective_classes() -> None:
    assert effective_classes(SMALL) == pytest.approx([1, 2, 4], abs=1e-12)
    assert effective_classes(np.array([[3, 1]])) == pytest.approx(4 / 3**0.75)


def test_a_runs_summary_has_the_measures(tmp_path: Path) -> None:
    run = flsplit.run([
        "engine=inline", "clients=2", "rounds=1", "partition=shards", "dataset.train_limit=40", "local_steps=1",
        "dataset.test_limit=20", f"out={tmp_path / 'run'}",
    ])  # fmt: skip
    held = pd.read_parquet(tmp_path / "run" / "partition.parquet")
    counts = held.pivot_table(index="client", columns="label", values="count", fill_value=0).to_numpy()
    sizes, found = counts.sum(1), run.summary["skew"]
    assert found["effective_classes"] == pytest.approx(np.exp([entropy(row) for row in counts]).mean())
    assert found["label_divergence"] == pytest.approx(global_distance(counts).mean())
    assert found["label_distance"] == pytest.approx(pairwise_distance(counts))
    assert found["samples_ratio"] == sizes.max() / sizes.min() and found["gini"] == pytest.approx(gini(sizes))
    assert found["clients_lacking_a_class"] == (counts == 0).any(axis=1).sum() > 0


def test_hand_worked_pairwise_distance() -> None:
    # Clients 0 and 1: (1/2 + 1/2) / 2. Clients 0 and 2: (3/4 + 3 * 1/4) / 2. Clients 1 and 2: 4 * 1/4 / 2.
    assert pairwise_distance(SMALL) == pytest.approx((1 / 2 + 3 / 4 + 1 / 2) / 3)


def test_hand_worked_global_distance() -> None:
    # The whole is (1/2, 1/4, 1/8, 1/8).
    assert global_distance(SMALL) == pytest.approx([1 / 2, (0 + 1 / 4 + 1 / 8 + 1 / 8) / 2, (1 / 4 + 0 + 1 / 4) / 2])


def test_global_distance_weighs_the_whole_by_samples() -> None:
    assert global_distance(np.array([[90, 0], [0, 10]])) == pytest.approx([0.1, 0.9])


def test_global_distance_is_half_the_distance_of_zhao_et_al() -> None:
    """Ten clients of one label each: sum_y |p_k(y) - p(y)| is 0.9 + 9 * 0.1."""
    assert 2 * global_distance(500 * np.eye(10)) == pytest.approx([1.8] * 10)


def test_hand_worked_gini() -> None:
    assert gini(np.array([5, 5, 5])) == 0
    assert gini(np.array([3, 1])) == pytest.approx(2 / (2 * 4))
    assert gini(np.array([1, 2, 6])) == pytest.approx((1 + 5 + 4) / (3 * 9))
    assert gini(np.array([0, 0, 0, 12])) == pytest.approx(1 - 1 / 4)
    assert gini(np.array([7])) == 0


def test_all_measures_of_a_hand_worked_partition() -> None:
    measures = skew(as_table(SMALL))
    assert (measures.clients, measures.labels) == (3, 4)
    assert measures.entropy == Spread(mean=0.5, min=0.0, median=0.5, max=1.0)
    assert measures.pairwise_distance == pytest.approx(7 / 12)
    assert measures.global_distance == Spread(mean=1 / 3, min=0.25, median=0.25, max=0.5)
    assert measures.samples == Spread(mean=16 / 3, min=4, median=4, max=8)
    assert measures.gini == pytest.approx(8 / (3 * 16))


@pytest.mark.parametrize("clients,labels,seed", [(2, 2, 0), (7, 3, 1), (40, 10, 2), (25, 100, 3)])
def test_against_slow_loops_and_scipy(clients: int, labels: int, seed: int) -> None:
    counts = uneven(clients, labels, seed)
    rows = [[int(number) / sum(map(int, row)) for number in row] for row in counts]
    assert label_shares(counts) == pytest.approx(np.array(rows))

    entropies = [-sum(p * math.log(p) for p in row if p) / math.log(labels) for row in rows]
    assert label_entropy(counts) == pytest.approx(entropies, abs=1e-12)
    assert label_entropy(counts) == pytest.approx(entropy(counts, axis=1, base=labels), abs=1e-12)

    distances = [sum(abs(p - q) for p, q in zip(a, b)) / 2 for a, b in itertools.combinations(rows, 2)]
    assert pairwise_distance(counts) == pytest.approx(sum(distances) / len(distances))
    assert pairwise_distance(counts) == pytest.approx(pdist(np.array(rows), "cityblock").mean() / 2)

    whole = [sum(map(int, column)) / int(counts.sum()) for column in counts.T]
    assert global_distance(counts) == pytest.approx([sum(abs(p - q) for p, q in zip(row, whole)) / 2 for row in rows])

    sizes = [sum(map(int, row)) for row in counts]
    differences = sum(abs(a - b) for a in sizes for b in sizes)
    assert gini(np.array(sizes)) == pytest.approx(differences / (2 * clients * sum(sizes)))


def test_an_even_partition_has_no_skew() -> None:
    measures = skew(as_table(np.full((9, 7), 3)))
    assert measures.entropy is not None
    assert (measures.entropy.min, measures.entropy.max) == pytest.approx((1, 1))
    assert measures.entropy.max <= 1
    assert measures.pairwise_distance == pytest.approx(0, abs=1e-15)
    assert measures.global_distance.max == pytest.approx(0, abs=1e-15)
    assert measures.gini == 0


def test_clients_without_a_common_label_are_at_distance_one() -> None:
    measures = skew(as_table(np.diag([1, 20, 300])))
    assert measures.pairwise_distance == pytest.approx(1)
    assert measures.entropy == Spread(mean=0.0, min=0.0, median=0.0, max=0.0)


def test_smaller_alpha_is_more_skewed() -> None:
    found = [skew(partition_table(30, 10, alpha=alpha)) for alpha in (0.05, 0.5, 5.0, 500.0)]
    entropies = [measures.entropy.mean for measures in found if measures.entropy is not None]
    assert entropies == sorted(entropies) and len(entropies) == 4
    for distances in (
        [measures.pairwise_distance or 0.0 for measures in found],
        [measures.global_distance.mean for measures in found],
    ):
        assert distances == sorted(distances, reverse=True)


def test_one_client_has_no_pairs() -> None:
    measures = skew(as_table(np.array([[6, 2]])))
    assert measures.pairwise_distance is None
    assert measures.global_distance == Spread(mean=0.0, min=0.0, median=0.0, max=0.0)
    assert measures.gini == 0
    assert measures.entropy is not None
    assert measures.entropy.mean == pytest.approx(2 - 0.75 * math.log2(3))


def test_one_label_has_no_entropy() -> None:
    measures = skew(as_table(np.array([[6], [2]])))
    assert np.isnan(label_entropy(np.array([[6], [2]]))).all()
    assert measures.entropy is None
    assert measures.pairwise_distance == 0


def test_clients_of_a_single_sample() -> None:
    measures = skew(as_table(np.array([[1, 0], [0, 1], [1, 0], [1, 0]])))
    assert measures.pairwise_distance == pytest.approx(3 / 6)
    assert measures.global_distance.mean == pytest.approx((3 * 0.25 + 0.75) / 4)


def test_a_client_without_samples_counts_only_by_its_size() -> None:
    with_empty = skew(as_table(np.vstack([SMALL, np.zeros((1, 4), int)])))
    without = skew(as_table(SMALL))
    assert with_empty.clients == 4
    assert with_empty.samples.min == 0
    assert with_empty.gini > without.gini
    assert with_empty.entropy == without.entropy
    assert with_empty.pairwise_distance == without.pairwise_distance
    assert with_empty.global_distance == without.global_distance


def test_what_has_no_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has no samples"):
        label_shares(np.array([[1, 2], [0, 0]]))
    with pytest.raises(ValueError, match="at least one of each"):
        label_shares(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="no samples"):
        skew(as_table(np.zeros((2, 2), int)))
    with pytest.raises(ValueError, match="no samples"):
        skew(as_table(SMALL).iloc[:0])
    with pytest.raises(ValueError, match="no client"):
        gini(np.array([]))


def test_labels_and_clients_of_any_name_and_order() -> None:
    table = as_table(SMALL)
    named = table.assign(client=table["client"].map("c{}".format), label=table["label"].map("cat {}".format))
    shuffled = named.sample(frac=1, random_state=0)
    assert skew(shuffled[shuffled["count"] > 0]) == skew(table)


def test_three_thousand_clients_and_a_hundred_labels_take_little_memory() -> None:
    counts = uneven(3000, 100, seed=4)
    tracemalloc.start()
    for measure in (label_entropy, global_distance, pairwise_distance):
        measure(counts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000  # all pairs would take 3.6 GB
    subset = counts[::10]
    assert pairwise_distance(subset) == pytest.approx(pdist(label_shares(subset), "cityblock").mean() / 2)


def page_rows(tmp_path: Path, *partitions: pd.DataFrame) -> list[list[str]]:
    """The rows of all tables of skew on the page of runs with these partitions."""
    runs = [
        make_run(tmp_path / f"run{index}", config(seed=index), partition=partition)
        for index, partition in enumerate(partitions)
    ]
    write_report(runs, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    rows = []
    for table in html.split('<table class="skew cards">')[1:]:
        body = table.split("<tbody>")[1].split("</tbody>")[0]
        for row in body.split("</tr>")[:-1]:
            cells = row.split('<th scope="row">')[1].replace("</th>", "").replace("</td>", "")
            rows.append(re.split("<td[^>]*>", cells))
    return rows


@pytest.mark.slow
def test_the_page_shows_the_numbers(tmp_path: Path) -> None:
    dash = "\N{EN DASH}"
    rows = page_rows(tmp_path, as_table(100 * SMALL))
    assert [row[1:5] for row in rows] == [
        ["0.500", "0.000", "0.500", "1.000"],
        ["0.583", dash, dash, dash],
        ["0.333", "0.250", "0.250", "0.500"],
        ["2.33", "1", "2", "4"],
        ["2", dash, dash, dash],
        ["533", "400", "400", "800"],
        ["0.167", dash, dash, dash],
    ]
    assert [row[0].split(",")[0] for row in rows] == [
        "label entropy",
        "label distance",
        "label distance from all samples",
        "effective classes",
        "clients that lack a label",
        "samples",
        "Gini coefficient of samples per client",
    ]
    assert rows[0][5:] == ["one label only", "all labels equally often"]


@pytest.mark.slow
def test_the_page_has_one_table_for_each_partition(tmp_path: Path) -> None:
    same, other = as_table(SMALL), as_table(SMALL[:, ::-1] + 1)
    assert len(page_rows(tmp_path / "shared", same, same)) == 7
    rows = page_rows(tmp_path / "two", same, other, same)
    assert len(rows) == 14
    assert rows[0][1] == "0.500"
    assert rows[7][1] == f"{label_entropy(SMALL + 1).mean():.3f}"


@pytest.mark.slow
def test_the_page_says_which_run_has_which_partition(tmp_path: Path) -> None:
    page_rows(tmp_path, as_table(SMALL), as_table(SMALL + 1))
    section = (tmp_path / "page.html").read_text(encoding="utf-8").split("<h2>Partition</h2>")[1]
    first, second = section.split('<ul class="legend">')[1:]
    assert "seed 0</li>" in first and "16 samples of 4 labels" in first
    assert "seed 1</li>" in second and "28 samples of 4 labels" in second


@pytest.mark.slow
def test_the_page_has_dashes_where_a_measure_has_no_value(tmp_path: Path) -> None:
    dash = "\N{EN DASH}"
    rows = page_rows(tmp_path, as_table(np.array([[12]])))
    assert [row[1] for row in rows] == [dash, dash, "0.000", "1", "0", "12", "0.000"]


@pytest.mark.slow
def test_a_partition_without_samples_has_a_page_but_no_measures(tmp_path: Path) -> None:
    assert page_rows(tmp_path, as_table(np.zeros((2, 3), int))) == []
