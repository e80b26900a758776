"""A metric of one's own: expected calibration error, global and per client."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from extensions.conftest import Started


def ece():
    path = Path(__file__).parent / "calibration" / "ece.py"
    spec = importlib.util.spec_from_file_location("calibration.ece", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Ece(classes=("a", "b"))


def test_it_is_its_definition() -> None:
    """Two samples of confidence 0.9, one of them right, and two of 0.6, both right: (|1 - 1.8| + |2 - 1.2|) / 4."""
    logits = np.log([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]])
    assert ece().of(logits, np.array([0, 0, 0, 0])) == pytest.approx((0.8 + 0.8) / 4)


def test_columns_and_summary_follow(started: Started) -> None:
    run = started("metrics=[accuracy,calibration.ece]", "partition.holdout=0.3", "partition=iid")
    for table in (run.rounds, run.clients):
        assert table.test_ece.between(0, 1).all()
    assert run.summary["final_test_ece"] == run.rounds.test_ece.iloc[-1]
    own = run.summary["own_test_ece"]
    last = run.clients[run.clients["round"] == 2].test_ece
    assert own["worst_decile"] == last.max()  # the smaller the better
    assert own["mean"] == pytest.approx(last.mean())
