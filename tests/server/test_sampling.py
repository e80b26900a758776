"""Who takes part in a round where not all do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flsplit
from flsplit.errors import UserError
from flsplit.server.sampling import balanced, uniform

LABELS = np.array([[8, 0, 0], [0, 9, 0], [0, 0, 7], [6, 3, 0]])
SMALL = [
    "engine=inline", "clients=12", "clients_per_round=3", "partition=shards", "partition.shards_per_client=2",
    "dataset.train_limit=480", "dataset.test_limit=20", "batch_size=40", "eval_every=99", "compressor=base",
]  # fmt: skip


def imbalance(counts: np.ndarray) -> float:
    return float(((counts / counts.sum() - 1 / len(counts)) ** 2).sum())


def test_each_is_drawn_as_likely_as_the_definition_says() -> None:
    stream, draws = np.random.default_rng(5), 4000
    drawn = [tuple(balanced(stream, [0, 1, 2, 3], 2, LABELS.__getitem__)) for _ in range(draws)]
    expected = {}
    first = {c: imbalance(LABELS[c]) ** -10 for c in range(4)}
    for a in range(4):
        second = {b: imbalance(LABELS[a] + LABELS[b]) ** -10 for b in range(4) if b != a}
        for b, likely in second.items():
            expected[a, b] = first[a] / sum(first.values()) * likely / sum(second.values())
    assert sum(expected.values()) == pytest.approx(1)
    for pair, likely in expected.items():
        assert drawn.count(pair) / draws == pytest.approx(likely, abs=4 * (likely * (1 - likely) / draws) ** 0.5 + 1e-3)


def test_where_all_are_alike_it_is_a_uniform_choice() -> None:
    stream, same = np.random.default_rng(6), np.array([3, 3])
    drawn = [tuple(sorted(balanced(stream, [4, 7, 9], 2, lambda client: same))) for _ in range(3000)]
    for pair in ((4, 7), (4, 9), (7, 9)):
        assert drawn.count(pair) / 3000 == pytest.approx(1 / 3, abs=0.035)


def test_clients_without_samples_do_no_harm() -> None:
    found = balanced(np.random.default_rng(1), [0, 1, 2], 3, lambda client: np.array([0, 5 * (client == 2)]))
    assert sorted(found) == [0, 1, 2]


def test_uniform_is_the_plain_choice() -> None:
    drawn = uniform(np.random.default_rng(7), [5, 6, 8, 9], 2)
    assert drawn == [[5, 6, 8, 9][at] for at in np.random.default_rng(7).choice(4, 2, replace=False)]


@pytest.mark.slow
def test_labels_of_a_round_are_more_even_and_clients_say_once_what_they_have(tmp_path: Path) -> None:
    found = {}
    for how in ("uniform", "balanced"):
        run = flsplit.run([*SMALL, "rounds=20", f"sampling={how}", f"out={tmp_path / how}"])
        has = pd.read_parquet(tmp_path / how / "partition.parquet").pivot_table(
            index="client", columns="label", values="count", fill_value=0
        )
        clients = run.clients.groupby("round").client.apply(list)
        assert clients.map(len).eq(3).all() and clients.map(lambda c: len(set(c))).eq(3).all()
        found[how] = np.mean([imbalance(has.loc[c].sum().to_numpy()) for c in clients]), run.clients
    assert found["balanced"][0] < 0.8 * found["uniform"][0]
    bits = found["balanced"][1].groupby("client").sync_bits
    assert set(bits.first() - bits.min()) <= {0, 320} and (bits.first() - bits.last()).eq(320)[bits.size() > 1].all()
    plain = found["uniform"][1].sync_bits
    assert plain.nunique() == 1 and bits.min()[bits.size() > 1].eq(plain.iloc[0]).all()


@pytest.mark.slow
def test_a_resumed_run_draws_the_same_clients(tmp_path: Path) -> None:
    keys = [*SMALL, "sampling=balanced"]
    whole = flsplit.run([*keys, "rounds=4", f"out={tmp_path / 'whole'}"])
    flsplit.run([*keys, "rounds=2", f"out={tmp_path / 'part'}"])
    part = flsplit.run([f"resume={tmp_path / 'part'}", "rounds=4"])
    pd.testing.assert_frame_equal(whole.clients, part.clients)


def test_another_way_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^sampling must be one of uniform, balanced, got 'balance'; did you mean balanced\?$"
    ):
        flsplit.run(["sampling=balance"])


@pytest.mark.slow
def test_where_all_take_part_there_is_nothing_to_choose(tmp_path: Path) -> None:
    keys = [*SMALL, "clients_per_round=null", "rounds=1", "local_steps=1"]
    even = flsplit.run([*keys, "sampling=balanced", f"out={tmp_path / 'even'}"])
    assert even.summary["notes"] == ["sampling=balanced has nothing to choose: all clients take part in every round"]
    plain = flsplit.run([*keys, f"out={tmp_path / 'plain'}"])
    pd.testing.assert_frame_equal(even.clients, plain.clients)
    assert "notes" not in plain.summary
