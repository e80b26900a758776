"""FedBuff in whole runs: reports as they come in simulated time."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.timed import FEDBUFF, TIME, UNLIKE, run

from flsplit.server.checkpoint import Checkpoints


@pytest.mark.slow
def test_fedbuff_takes_reports_in_simulated_time(tmp_path: Path) -> None:
    found = run(*FEDBUFF, out=tmp_path / "run")
    assert (found.clients.groupby("round").client.count() == 2).all()
    assert found.rounds.simulated_seconds.is_monotonic_increasing
    often = found.clients.client.value_counts()
    alone = run("strategy=splitfed_v1", *UNLIKE, "clients=4", "rounds=1", out=tmp_path / "v1").clients
    busy = (alone.compute_seconds + alone.transfer_seconds).set_axis(alone.client)
    assert often.get(busy.idxmin(), 0) > often.get(busy.idxmax(), 0)
    # Its first step comes when the second-fastest client is there.
    assert found.rounds.simulated_seconds[0] == pytest.approx(busy.sort_values().iloc[1], rel=1e-6)


def test_all_of_a_client_s_time_is_told_in_fedbuff_whoever_fails(tmp_path: Path) -> None:
    """From its beginning, which is a step of the server, to the step that it reports for."""
    found = run(*FEDBUFF, "faults.dropout=0.4", "rounds=8", out=tmp_path / "run")
    ended = found.rounds.set_index("round").simulated_seconds
    own = found.clients.assign(spent=found.clients[TIME[:3]].sum(axis=1))
    assert own.failed.any() and not own.failed.all()
    for _, rounds in own.groupby("client"):
        began = [0.0, *ended[rounds["round"]]][:-1]
        assert rounds.spent.tolist() == pytest.approx((ended[rounds["round"]] - began).tolist(), rel=1e-9)


@pytest.mark.slow
def test_fedbuff_of_all_alike_is_splitfed(tmp_path: Path) -> None:
    keys = ["network=lte", "network.jitter_ms=0"]
    found = run("strategy=fedbuff", "strategy.buffer=3", *keys, out=tmp_path / "buff")
    plain = run("strategy=splitfed_v1", *keys, out=tmp_path / "v1")
    for column, bound in (("train_loss", 1e-3), ("test_loss", 1e-3), ("simulated_seconds", 1e-9)):
        assert found.rounds[column].tolist() == pytest.approx(plain.rounds[column].tolist(), rel=bound)
    ended = [Checkpoints(tmp_path / name / "checkpoint").load() for name in ("buff", "v1")]
    steps = [
        state.server_model.moments[-1]
        for state in ended
        if state is not None and state.server_model.moments is not None
    ]
    assert len(steps) == 2 and steps[0] == steps[1] > 0  # Adam goes on at the server side too


@pytest.mark.slow
def test_in_fedbuff_a_client_waits_from_its_report_to_the_servers_step(tmp_path: Path) -> None:
    keys = ["network=custom", "network.flops=[1e7,1e9]", "network.server_flops=1e9", "network.jitter_ms=0"]
    found = run("strategy=fedbuff", "strategy.buffer=2", *keys, "rounds=4", out=tmp_path / "run")
    parts = found.clients[["compute_seconds", "transfer_seconds", "waiting_seconds"]].sum(axis=1)
    ends = found.rounds.set_index("round").simulated_seconds
    began: dict[int, float] = {}
    for row, lasted in zip(found.clients.itertuples(), parts):
        assert lasted == pytest.approx(ends[row.round] - began.get(row.client, 0.0))  # from its start to the step
        began[row.client] = ends[row.round]
