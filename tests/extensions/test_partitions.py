"""A partition of one's own, and the one by a column of the data set."""

from __future__ import annotations

import pytest
from extensions.conftest import Started

from flsplit import cli

GROWING = ("--config-dir", "growing/conf", "partition=growing")


@pytest.mark.slow
def test_clients_have_what_it_deals_out(started: Started) -> None:
    run = started(*GROWING)
    assert run.clients[run.clients["round"] == 1].samples.tolist() == [10, 20, 30]


@pytest.mark.slow
def test_an_option(started: Started) -> None:
    run = started(*GROWING, "partition.first=4", "partition.holdout=0.5", "batch_size=2")
    assert run.clients[run.clients["round"] == 1].samples.tolist() == [8, 10, 12]


def test_a_bad_option_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert cli.main([*GROWING, "partition.first=0", f"out={tmp_path}/run", "engine=inline"]) == 2
    assert capsys.readouterr().err == "flsplit: partition.first must be at least 1, got 0\n"
