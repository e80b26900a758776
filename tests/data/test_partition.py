import math
import shutil
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from flwr_datasets import partitioner as flower

import flsplit
from flsplit.data import DataError, Partition, Samples, build_partition, deal, split_holdout
from flsplit.errors import UserError

CONFIGS: list[dict[str, Any]] = [
    {"name": "iid"},
    {"name": "dirichlet", "alpha": 0.3},
    {"name": "dirichlet", "alpha": 1e-300},
    {"name": "dirichlet", "alpha": 0.01},
    {"name": "dirichlet", "alpha": 1e300},
    {"name": "dirichlet", "alpha": math.inf},
    {"name": "shards", "shards_per_client": 1},
    {"name": "shards", "shards_per_client": 3},
    {"name": "pathological", "classes_per_client": 1},
    {"name": "pathological", "classes_per_client": 4},
    {"name": "quantity", "sigma": 0.0},
    {"name": "quantity", "sigma": 1.0},
    {"name": "quantity", "sigma": 50.0},
]
SIZES = [(10, 1), (10, 10), (97, 3), (500, 100), (1437, 10), (1437, 1000), (1437, 1437)]


def ids(config: dict[str, Any]) -> str:
    return "-".join(map(str, config.values()))


def partition(labels: np.ndarray, clients: int, config: dict[str, Any], *, seed: int) -> list[np.ndarray]:
    samples = Samples(labels=labels, classes=int(labels.max()) + 1)
    return deal(samples, clients, build_partition(**config), seed=seed)


def some_labels(samples: int, classes: int = 10) -> np.ndarray:
    labels = np.random.default_rng(samples).integers(0, classes, samples)
    labels[:classes] = np.arange(classes)  # every class occurs
    return labels


def class_counts(labels: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])


@pytest.mark.some
@pytest.mark.parametrize("config", CONFIGS, ids=ids)
@pytest.mark.parametrize(("samples", "clients"), SIZES)
def test_every_sample_goes_to_one_client_and_none_is_empty(config: dict[str, Any], samples: int, clients: int) -> None:
    labels = some_labels(samples)
    parts = partition(labels, clients, config, seed=3)
    assert len(parts) == clients
    assert all(len(part) > 0 for part in parts)
    assert all((np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(samples))
    again = partition(labels, clients, config, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again))
    if 1 < clients < samples:
        other = partition(labels, clients, config, seed=4)
        assert not all(np.array_equal(a, b) for a, b in zip(parts, other))


def test_a_class_that_does_not_occur_is_no_hurdle() -> None:
    labels = some_labels(200) * 3
    for config in CONFIGS:
        assert sum(map(len, partition(labels, 7, config, seed=0))) == 200


def skew(labels: np.ndarray, parts: list[np.ndarray]) -> float:
    """Mean over the clients of the distance between their class mix and the overall one, 0..1."""
    counts = class_counts(labels, parts)
    mix = counts / counts.sum(1, keepdims=True)
    return float(np.abs(mix - counts.sum(0) / counts.sum()).sum(1).mean() / 2)


def test_small_alpha_is_more_skewed() -> None:
    labels = some_labels(5000)
    skews = [
        skew(labels, partition(labels, 20, {"name": "dirichlet", "alpha": alpha}, seed=1))
        for alpha in (0.05, 0.5, 5.0, math.inf)
    ]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.6
    assert skews[-1] < 0.1


def test_iid_is_balanced() -> None:
    labels = some_labels(1003)
    sizes = [len(part) for part in partition(labels, 10, {"name": "iid"}, seed=1)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_have_few_classes_and_equal_sizes(shards: int) -> None:
    labels = np.sort(some_labels(2000))
    config = {"name": "shards", "shards_per_client": shards}
    counts = class_counts(labels, partition(labels, 40, config, seed=1))
    # 40 clients' shards are shorter than a class, so that each touches at most two.
    assert ((counts > 0).sum(1) <= 2 * shards).all()
    assert np.ptp(counts.sum(1)) <= shards


@pytest.mark.parametrize("per_client", [1, 2, 5, 10])
@pytest.mark.parametrize("clients", [10, 15, 100])
def test_pathological_clients_have_that_many_classes(per_client: int, clients: int) -> None:
    labels = some_labels(5000)
    config = {"name": "pathological", "classes_per_client": per_client}
    counts = class_counts(labels, partition(labels, clients, config, seed=1))
    assert ((counts > 0).sum(1) == per_client).all()
    holders = (counts > 0).sum(0)
    assert np.ptp(holders) <= 1  # the classes are dealt out evenly
    for label, count in enumerate(holders):
        shares = counts[counts[:, label] > 0, label]
        assert len(shares) == count
        assert np.ptp(shares) <= 1


def test_pathological_clients_vary() -> None:
    labels = some_labels(5000)
    config = {"name": "pathological", "classes_per_client": 2}
    hands = class_counts(labels, partition(labels, 50, config, seed=1)) > 0
    assert len(np.unique(hands, axis=0)) > 15  # of 45 possible pairs


def test_pathological_hands_grow_where_a_class_would_be_left_out() -> None:
    labels = some_labels(1000, classes=20)
    config = {"name": "pathological", "classes_per_client": 2}
    counts = class_counts(labels, partition(labels, 3, config, seed=1))
    assert counts.sum() == 1000
    assert ((counts > 0).sum(1) <= 7).all()


def test_quantity_spreads_sizes_as_sigma_says() -> None:
    labels = some_labels(100_000)
    for sigma in (0.25, 1.0):
        parts = partition(labels, 300, {"name": "quantity", "sigma": sigma}, seed=1)
        assert np.std(np.log([len(part) for part in parts])) == pytest.approx(sigma, rel=0.15)
    equal = [len(part) for part in partition(labels, 300, {"name": "quantity", "sigma": 0.0}, seed=1)]
    assert max(equal) - min(equal) <= 1


def test_the_top_up_takes_one_sample_from_the_largest() -> None:
    labels = np.zeros(100, np.int64)
    parts = partition(labels, 5, {"name": "dirichlet", "alpha": 1e-6}, seed=1)
    assert sorted(len(part) for part in parts) == [1, 1, 1, 1, 96]


def test_a_thousand_clients_on_fifty_thousand_samples_take_no_time() -> None:
    labels = some_labels(50_000, classes=100)
    for name in ("iid", "dirichlet", "shards", "pathological", "quantity"):
        start = time.process_time()
        partition(labels, 1000, {"name": name}, seed=0)
        assert time.process_time() - start < 2.0


FLOWER = {
    "iid": lambda clients, rng: flower.IidPartitioner(clients),
    "dirichlet": lambda clients, rng: flower.DirichletPartitioner(
        clients, "label", 0.3, min_partition_size=0, self_balancing=False, shuffle=False, seed=rng
    ),
    "shards": lambda clients, rng: flower.ShardPartitioner(
        clients, "label", num_shards_per_partition=2, shuffle=False, seed=rng
    ),
}


@pytest.mark.parametrize("name", FLOWER)
@pytest.mark.parametrize("clients", [5, 20])
def test_deals_as_flwr_datasets_does(name: str, clients: int) -> None:
    labels = some_labels(1000)
    theirs = FLOWER[name](clients, np.random.default_rng(7))
    rows = datasets.Dataset.from_dict({"row": np.arange(1000), "label": labels})
    theirs.dataset = rows
    samples = Samples(labels=labels, classes=10)
    ours = build_partition(name).deal(samples, clients, np.random.default_rng(7))
    for client, part in enumerate(ours):
        assert sorted(part) == sorted(theirs.load_partition(client)["row"])


BAD = [
    ({"name": "iid"}, 0, "clients=0"),
    ({"name": "iid"}, 101, "only 100 training samples"),
    ({"name": "other"}, 2, "column, dirichlet, iid, pathological, quantity, shards"),
    ({"name": "dirichlet", "alpha": 0.0}, 2, "partition.alpha=0.0"),
    ({"name": "dirichlet", "alpha": -1.0}, 2, "partition.alpha=-1.0"),
    ({"name": "dirichlet", "alpha": math.nan}, 2, "partition.alpha=nan"),
    ({"name": "shards", "shards_per_client": 0}, 2, "partition.shards_per_client=0"),
    ({"name": "pathological", "classes_per_client": 0}, 2, "partition.classes_per_client=0"),
    ({"name": "pathological", "classes_per_client": 11}, 2, "only 10 classes"),
    ({"name": "quantity", "sigma": -0.1}, 2, "partition.sigma=-0.1"),
    ({"name": "quantity", "sigma": math.nan}, 2, "partition.sigma=nan"),
    ({"name": "iid", "holdout": 1.0}, 2, "partition.holdout=1.0"),
    ({"name": "iid", "holdout": -0.1}, 2, "partition.holdout=-0.1"),
]


@pytest.mark.parametrize(("config", "clients", "message"), BAD)
def test_mistakes_are_named(config: dict[str, Any], clients: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        partition(some_labels(100), clients, config, seed=0)
    assert "\n" not in str(caught.value)


def by_column(values: np.ndarray, clients: int, seed: int = 0) -> list[np.ndarray]:
    samples = Samples(labels=np.zeros(len(values), np.int64), classes=1, columns={"writer": values})
    return deal(samples, clients, build_partition("column", column="writer"), seed=seed)


def test_a_client_for_each_value_in_ascending_order() -> None:
    values = np.array([10, 2, 2, 10, 7])
    assert [part.tolist() for part in by_column(values, 3)] == [[1, 2], [4], [0, 3]]


def test_values_are_dealt_whole_and_evenly() -> None:
    sizes = [40, 30, 30, 20, 20, 20, 10, 5, 3, 2]
    writers = np.repeat([f"w{number}" for number in range(10)], sizes)
    values = np.random.default_rng(0).permutation(writers)
    parts = by_column(values, 3)
    assert [len(set(values[parts[a]]) & set(values[parts[b]])) for a, b in ((0, 1), (0, 2), (1, 2))] == [0, 0, 0]
    assert sorted(np.concatenate(parts)) == list(range(180))
    assert [len(part) for part in parts] == [60, 60, 60]  # 40+20, 30+20+10, 30+20+5+3+2
    assert all(np.array_equal(a, b) for a, b in zip(parts, by_column(values, 3)))
    assert any(not np.array_equal(a, b) for a, b in zip(parts, by_column(values, 3, seed=1)))


def test_more_clients_than_values_are_refused_with_the_values() -> None:
    with pytest.raises(
        DataError, match=r"clients=4: must be at most 3, the values that partition.column=writer"
    ) as caught:
        by_column(np.array(["b", "a", "c", "a", "b"]), 4)
    assert str(caught.value).endswith(": a, b, c")


class Own(Partition):
    """Returns what it is told."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        super().__init__()
        self.parts = parts

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        return self.parts


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([[0, 1], [2]], "gave 2 parts for 3 clients"),
        ([[0, 1], [1], [2]], "gave a sample twice"),
        ([[0], [1], [5]], "positions from 0 to 4"),
        ([[0], [1], [-1]], "positions from 0 to 4"),
        ([[0.5], [1], [2]], "positions from 0 to 4"),
        ([["a"], [1], [2]], "positions from 0 to 4"),
        ([[True, False], [False, True], [0]], "gave a mask of booleans; a part must be positions"),
        ([[], [], []], "gave no client any sample"),
    ],
)
def test_a_partition_that_breaks_its_contract_is_named(parts: list[Any], message: str) -> None:
    samples = Samples(labels=np.zeros(5, np.int64), classes=1)
    with pytest.raises(DataError, match=f"partition: .*{message}"):
        deal(samples, 3, Own([np.array(part) for part in parts]), seed=0)


@pytest.mark.parametrize("given", [None, 3])
def test_a_partition_that_returns_no_parts_is_named(given: Any) -> None:
    samples = Samples(labels=np.zeros(5, np.int64), classes=1)
    with pytest.raises(UserError, match=rf"^partition: .*test_partition gave {type(given).__name__}; deal must return"):
        deal(samples, 3, Own(given), seed=0)


def test_an_error_of_deal_is_not_told_as_a_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    partition = build_partition("iid")
    monkeypatch.setattr(partition, "deal", lambda *_: np.zeros(3).reshape(2))
    with pytest.raises(ValueError, match="cannot reshape") as raised:
        deal(Samples(labels=np.zeros(6, dtype=np.int64), classes=1), 2, partition, seed=0)
    assert not isinstance(raised.value, UserError)


@pytest.mark.parametrize("none", [np.arange(0), np.array([]), []])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.uint64])
def test_samples_may_be_left_out_and_empty_clients_get_one(none: Any, kind: Any) -> None:
    samples = Samples(labels=np.zeros(9, np.int64), classes=1)
    parts = deal(samples, 3, Own([np.arange(4, dtype=kind), none, np.array([8])]), seed=0)
    assert [len(part) for part in parts] == [3, 1, 1]


def test_holdout_is_disjoint_stratified_and_leaves_one() -> None:
    labels = some_labels(1000)
    indices = np.arange(0, 1000, 2)
    train, held_out = split_holdout(indices, labels, 0.2, seed=0, client=4)
    assert len(held_out) == 100
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), indices)
    whole, part = (np.bincount(labels[rows], minlength=10) for rows in (indices, held_out))
    assert (np.abs(part - 0.2 * whole) <= 1).all()
    again = split_holdout(indices, labels, 0.2, seed=0, client=4)
    assert np.array_equal(again[1], held_out)
    assert not np.array_equal(split_holdout(indices, labels, 0.2, seed=0, client=5)[1], held_out)
    assert not np.array_equal(split_holdout(indices, labels, 0.2, seed=1, client=4)[1], held_out)


@pytest.mark.parametrize(
    ("samples", "fraction", "expected"),
    [(1, 0.99, 0), (2, 0.99, 1), (3, 0.99, 2), (10, 0.0, 0), (10, 0.25, 3)],
)
def test_holdout_of_few_samples(samples: int, fraction: float, expected: int) -> None:
    train, held_out = split_holdout(np.arange(samples), np.zeros(samples, int), fraction, seed=0, client=0)
    assert len(held_out) == expected
    assert len(train) == samples - expected


@pytest.mark.slow
def test_a_folder_that_another_run_has_used_is_as_new(tmp_path: Path) -> None:
    keys = ["engine=inline", "clients=4", "rounds=1", "batch_size=4", "dataset.train_limit=90", "dataset.test_limit=20"]
    unlike = [*keys, "compressor=base", "partition=quantity", "partition.sigma=2", "partition.holdout=0.2"]
    expected = flsplit.run([*unlike, f"out={tmp_path / 'fresh'}"])
    flsplit.run([*keys, "compressor=base", "partition=iid", f"out={tmp_path / 'run'}"])
    shutil.rmtree(tmp_path / "run")
    found = flsplit.run([*unlike, f"out={tmp_path / 'run'}"])
    pd.testing.assert_frame_equal(found.clients, expected.clients)
    assert found.summary["own_test_accuracy"] == expected.summary["own_test_accuracy"] is not None


def test_parts_are_of_one_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    partition = build_partition("iid")
    monkeypatch.setattr(partition, "deal", lambda samples, clients, rng: [np.arange(4).reshape(2, 2), np.arange(4, 6)])
    with pytest.raises(UserError, match=r"gave parts of shapes \[\(2, 2\), \(2,\)\]; each must be \(n,\)"):
        deal(Samples(labels=np.zeros(6, dtype=np.int64), classes=1), 2, partition, seed=0)
