"""A strategy that does not do what a round takes is told so in one line; no such run looks like any other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flsplit
from flsplit import cli
from flsplit.errors import RunFailed, UserError
from flsplit.server import strategy as strategies_of
from flsplit.server.federation import Federation
from strategies.splitfed_v1 import SplitFedV1

KEYS = [
    "engine=inline", "clients=3", "rounds=1", "batch_size=8", "local_steps=1", "dataset.train_limit=60",
    "dataset.test_limit=20", "compressor=base",
]  # fmt: skip
Round = Callable[[Federation, Sequence[int]], Any]


def half_taken(fed: Federation, clients: Sequence[int]) -> None:
    next(fed.train(clients))


def a_tuple(fed: Federation, clients: Sequence[int]) -> None:
    fed.client_model = fed.average(fed.train(clients))  # type: ignore[assignment]


def swapped(fed: Federation, clients: Sequence[int]) -> None:
    fed.server_model, fed.client_model = fed.average(fed.train(clients))


def averaged_twice(fed: Federation, clients: Sequence[int]) -> None:
    reports = list(fed.train(clients))
    fed.average(reports)
    fed.average(reports)


def setting_the_clock(seconds: float) -> Round:
    """A round that ends then."""

    def played(fed: Federation, clients: Sequence[int]) -> None:
        fed.client_model, fed.server_model = fed.average(fed.train(clients))
        fed.now = seconds

    return played


@pytest.mark.some
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda fed, clients: fed.train(clients), "has not taken all reports of fed.train"),
        (half_taken, "has not taken all reports of fed.train"),
        (lambda fed, clients: None, "has trained nobody in round 1"),
        (lambda fed, clients: list(fed.train([*clients, 0])), "trains client 0 twice in round 1"),
        (lambda fed, clients: list(fed.train([5])), "trains client 5; there are 0 to 2"),
        (lambda fed, clients: fed.train_cohort([-1]), "trains client -1; there are 0 to 2"),
        (a_tuple, "leaves a tuple in fed.client_model, which must be a SideState"),
        (swapped, r"leaves weights of shape \(\d+,\) in fed.client_model, whose shape is \(\d+,\)"),
        (averaged_twice, "takes the models of client 0 twice"),
        (setting_the_clock(-5.0), r"leaves fed.now at -5 s in round 1, which began at 0 s"),
        (setting_the_clock(math.nan), r"leaves fed.now at nan s in round 1"),
        (setting_the_clock(math.inf), r"leaves fed.now at inf s in round 1"),
    ],
)
def test_a_round_that_is_none(wrong: Round, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SplitFedV1, "round", lambda self, fed, clients: wrong(fed, clients) and None)
    with pytest.raises(RunFailed, match=message):
        flsplit.run([*KEYS, f"out={tmp_path / 'run'}"])


def test_a_round_that_leaves_both_models_as_they_were_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SplitFedV1, "round", lambda self, fed, clients: fed.average(fed.train(clients)) and None)
    assert cli.main([*KEYS, "rounds=3", f"out={tmp_path / 'run'}"]) == 0
    told = "strategy=splitfed_v1 leaves fed.client_model and fed.server_model as they were before round"
    assert capsys.readouterr().err.count(told) == 1
    monkeypatch.undo()
    assert cli.main([*KEYS, "rounds=3", f"out={tmp_path / 'other'}"]) == 0
    assert told not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "entry"),
    [
        ({"lr": 0.1, "steps": [1, np.float64(2)]}, r"state_dict\(\)\['steps'\]\[1\], a float64, cannot be kept"),
        ({"weights": np.zeros(3)}, r"state_dict\(\)\['weights'\], a ndarray, cannot be kept"),
    ],
)
def test_what_of_a_state_cannot_be_kept_is_named(
    state: dict[str, Any], entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SplitFedV1, "state_dict", lambda self: state, raising=False)
    monkeypatch.setattr(SplitFedV1, "load_state_dict", lambda self, state: None, raising=False)
    with pytest.raises(RunFailed, match=entry):
        flsplit.run([*KEYS, f"out={tmp_path / 'run'}"])


def test_without_a_split_the_groups_that_play_no_part_are_named() -> None:
    note = strategies_of.build("fedavg").note or ""
    assert all(group in note for group in ("compressor", "quantizer", "channel"))


def test_a_state_that_nobody_loads_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SplitFedV1, "state_dict", lambda self: {"a": 1}, raising=False)
    with pytest.raises(UserError, match="has a state_dict, so it needs a load_state_dict"):
        strategies_of.build("splitfed_v1")


def test_an_init_that_leaves_out_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SplitFedV1, "__init__", lambda self: None, raising=False)
    with pytest.raises(UserError, match=r"its __init__ must call super\(\).__init__\(\*\*options\)"):
        strategies_of.build("splitfed_v1")
