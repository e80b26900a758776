"""Ratios by the diversity of clients' labels: hand-worked, whole runs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flsplit
from flsplit.compose import compose
from flsplit.data.skew import effective_classes
from flsplit.errors import UserError
from flsplit.experiment import prepare
from flsplit.ledger.allocation import by_diversity

KEYS = [
    "engine=inline", "clients=4", "rounds=1", "dataset.train_limit=200", "dataset.test_limit=20", "batch_size=8",
    "partition.alpha=0.3", "budget.allocation=diversity",
]  # fmt: skip


def test_hand_worked_ratios() -> None:
    # Of 40 samples a quarter is 10: c (10 * 1 + 10 * 3 + 20 * 2) = 10, so c = 1/8.
    found = by_diversity(0.25, np.array([1.0, 3.0, 2.0]), np.array([10, 10, 20]))
    assert found == pytest.approx([1 / 8, 3 / 8, 2 / 8])


def test_nobody_has_more_than_one_and_the_total_stays() -> None:
    # c = 16 / (10 + 90) would give the second 1.44: it has 1, which leaves 6 for the first.
    assert by_diversity(0.8, np.array([1.0, 9.0]), np.array([10, 10])) == pytest.approx([0.6, 1.0])
    assert by_diversity(1.0, np.array([1.0, 9.0, 2.0]), np.array([10, 10, 5])) == pytest.approx([1, 1, 1])


def test_a_client_without_samples_takes_nothing_away() -> None:
    found = by_diversity(0.5, np.array([1.0, 7.0, 1.0]), np.array([10, 0, 10]))
    assert found == pytest.approx([0.5, 0.5, 0.5])


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["local_steps=null", "local_steps=4"])
@pytest.mark.parametrize("compressor", ["compressor=adc", "compressor=topk"])
def test_a_run_gives_each_client_its_ratio(compressor: str, steps: str, tmp_path: Path) -> None:
    keys = [*KEYS, compressor, steps, f"out={tmp_path / 'run'}"]
    profiles = prepare(compose(keys)).plan.profiles
    run = flsplit.run(keys)
    held = pd.read_parquet(tmp_path / "run" / "partition.parquet")
    counts = held.pivot_table(index="client", columns="label", values="count", fill_value=0).to_numpy()
    ratio = 0.25 if compressor == "compressor=adc" else 0.1
    found = np.array([profiles[str(client)]["ratio"] for client in range(4)])
    takes = run.clients.set_index("client").samples.sort_index().to_numpy()  # what is left of an epoch is dropped
    assert found @ takes == pytest.approx(ratio * takes.sum()) and (takes != counts.sum(1)).any()
    assert found / effective_classes(counts) == pytest.approx([found[0] / effective_classes(counts)[0]] * 4)
    sent = run.clients.set_index("client").sort_index()
    per_sample = sent.uplink_bits / sent.samples
    assert per_sample.idxmax() == found.argmax() and per_sample.idxmin() == found.argmin()


@pytest.mark.some
@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["compressor=base"], "^budget.allocation must be equal with compressor=base, which cannot have any ratio"),
        (["compressor=c3sl"], "^budget.allocation must be equal with compressor=c3sl, which cannot have any ratio"),
        (
            ["strategy=fedavg"],
            "^budget.allocation must be equal for strategy=fedavg, whose clients send no activations",
        ),
        (
            ["compressor.scope=cohort", "strategy=parallel"],
            "budget.allocation must be equal with compressor.scope=cohort",
        ),
        (["budget.allocation=diverse"], "budget.allocation must be one of equal, diversity, got 'diverse'"),
    ],
)
def test_what_cannot_be_is_refused(keys: list[str], line: str, tmp_path: Path) -> None:
    typed = [key for key in KEYS if key.partition("=")[0] not in [other.partition("=")[0] for other in keys]]
    with pytest.raises(UserError, match=line):
        prepare(compose([*typed, *keys, f"out={tmp_path / 'run'}"]))


def test_a_profile_with_ratios_is_refused(tmp_path: Path) -> None:
    (tmp_path / "profile.csv").write_text("client,ratio\n1,0.5\n")
    with pytest.raises(UserError, match=r"^client_profile: ratio must be empty"):
        prepare(compose([*KEYS, f"client_profile={tmp_path / 'profile.csv'}", f"out={tmp_path / 'run'}"]))
