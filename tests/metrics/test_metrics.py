"""Metrics are what scikit-learn says they are, however an evaluation is cut into batches."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

import flsplit
from flsplit.compose import compose
from flsplit.errors import UserError
from flsplit.metrics import available, build
from flsplit.metrics.interface import numbers_of
from flsplit.metrics.top5 import Top5

KEYS = ["engine=inline", "clients=2", "rounds=1", "dataset.train_limit=60", "dataset.test_limit=40"]
LABELS = torch.arange(90) % 9  # of ten classes, one has no sample
LOGITS = torch.randn(90, 10, generator=torch.Generator().manual_seed(0)) + 1.5 * torch.eye(10)[LABELS]
NAMES = tuple("abcdefghij")
EXPECTED = {
    "accuracy": [sklearn.accuracy_score(LABELS, LOGITS.argmax(1))],
    "top5": [sklearn.top_k_accuracy_score(LABELS, LOGITS, k=5, labels=range(10))],
    "macro_f1": [sklearn.f1_score(LABELS, LOGITS.argmax(1), average="macro", zero_division=0)],
    "per_class": [*(((LOGITS.argmax(1) == c) & (c == LABELS)).sum().item() / 10 for c in range(9)), math.nan],
}


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("batch", [1, 7, 90])
def test_a_metric_is_its_definition(name: str, batch: int) -> None:
    metric = build(name, NAMES)
    for _ in range(2):  # the second time as if there had been no first
        metric.reset()
        for logits, labels in zip(LOGITS.split(batch), LABELS.split(batch)):
            metric.update(logits, labels)
        assert list(metric.compute()) == pytest.approx(EXPECTED[name], nan_ok=True)
    assert len(metric.columns) == len(EXPECTED[name])


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "per_class", "top5"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_has_diverged_has_no_number(name: str, value: float) -> None:
    metric = build(name, NAMES)
    metric.update(torch.full((4, 10), value), torch.arange(4))
    assert np.isnan(metric.compute()).tolist() == [True] * len(metric.columns)


def test_few_classes_are_all_among_five() -> None:
    metric = build("top5", ("a", "b"))
    metric.update(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    assert metric.compute() == (1.0,)


def test_columns_and_summary_follow(tmp_path: Path) -> None:
    metrics = "metrics=[accuracy,top5,macro_f1,per_class]"
    flsplit.run([*KEYS, metrics, "partition.holdout=0.3", f"out={tmp_path / 'run'}"])
    run = flsplit.run([f"resume={tmp_path / 'run'}", "rounds=2"])
    added = ["test_top5", "test_macro_f1", *(f"test_recall_{digit}" for digit in range(10))]
    assert run.rounds.columns[-len(added) :].tolist() == added == run.clients.columns[-len(added) :].tolist()
    assert run.rounds[added].notna().all(axis=None)
    assert np.allclose(run.rounds[added[2:]].mean(axis=1), run.rounds.test_accuracy)  # four samples of each class
    assert run.summary["final_test_top5"] == run.rounds.test_top5.iloc[-1] >= run.summary["final_test_accuracy"]
    assert run.summary["own_test_macro_f1"].keys() == {"mean", "worst_decile", "spread"}


@pytest.mark.parametrize(("name", "column"), [("top5", "top5"), ("loss", "loss")])
def test_two_metrics_of_one_name_are_refused(
    name: str, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / f"own_{name}"
    folder.mkdir()
    text = (
        "from flsplit.metrics import Collected\n\nclass Own(Collected):\n    def of(self, x, y):\n        return 0.0\n"
    )
    (folder / f"{name}.py").write_text(text)
    with pytest.raises(UserError, match=f"metrics: each must have columns of its own, but test_{column} would be"):
        compose([f"metrics=[accuracy,top5,own_{name}.{name}]"])


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("metrics=accuracy", r"metrics must be a list such as \[a,b\], got 'accuracy'"),
        ("metrics=[top5]", "metrics must have accuracy, and each metric once"),
        ("metrics=[accuracy,top5,top5]", "metrics must have accuracy, and each metric once"),
        ("metrics=[accuracy,top_5]", "metrics must be one of accuracy, .*did you mean 'top5'"),
    ],
)
def test_what_cannot_be_is_refused(key: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        compose([key])


@pytest.mark.parametrize("found", [(1.0, 2.0), (), None, ("a",), 1 + 2j], ids=str)
def test_a_metric_gives_a_number_for_each_column(found: object, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = build("top5", NAMES)
    monkeypatch.setattr(metric, "compute", lambda: found)
    with pytest.raises(TypeError, match=r"^metrics: top5 must give 1 numbers, got "):
        numbers_of(metric)


def test_a_number_that_is_none_is_null_in_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Top5, "compute", lambda self: (math.inf,))
    run = flsplit.run([*KEYS, "metrics=[accuracy,top5]", "partition.holdout=0.2", f"out={tmp_path / 'run'}"])
    assert run.summary["final_test_top5"] is None
    text = (tmp_path / "run" / "summary.json").read_text()
    assert "NaN" not in text and "Infinity" not in text


def test_a_metric_does_not_take_a_column_of_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Top5, "columns", ("link_accuracy",))
    with pytest.raises(UserError, match="test_link_accuracy would be there twice"):
        compose(["metrics=[accuracy,top5]"])
