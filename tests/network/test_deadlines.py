"""What ends a round or a run in simulated time, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.timed import SMALL, UNLIKE, run
from test_repeatability import same_numbers

import flsplit
from flsplit import cli


@pytest.mark.slow
def test_who_is_late_is_left_out(tmp_path: Path) -> None:
    free = run(*UNLIKE, out=tmp_path / "free")
    own = free.clients[free.clients["round"] == 1]
    busy = (own.compute_seconds + own.transfer_seconds).sort_values()
    deadline = busy.iloc[1] + 0.2  # the slowest of three is late, jitter of other rounds considered
    assert busy.iloc[2] > deadline + 0.2
    dropped = run(*UNLIKE, f"network.round_deadline_s={deadline}", out=tmp_path / "dropped")
    slowest = own.client[busy.index[2]]
    late = dropped.clients[dropped.clients.failed]
    assert (late.client == slowest).all() and len(late) == 3
    assert late.reason.str.contains("it would have been later than network.round_deadline_s=").all()
    assert dropped.rounds.simulated_seconds.tolist() == pytest.approx([deadline, 2 * deadline, 3 * deadline])
    partial = run(
        *UNLIKE, f"network.round_deadline_s={deadline}", "network.on_deadline=partial", out=tmp_path / "partial"
    )
    managed = partial.clients[partial.clients.client == slowest]
    assert not managed.failed.any() and (managed.samples < own.samples.max()).all() and (managed.samples > 0).all()
    assert (partial.rounds.simulated_seconds <= deadline * partial.rounds["round"] + 1e-9).all()
    # What was sent by then is counted, either way.
    assert late.uplink_bits.tolist() == managed.uplink_bits.tolist()
    # Who is left out takes the same steps, sends no model, and waits instead.
    for column in ("samples", "compute_seconds"):
        assert late[column].tolist() == managed[column].tolist()
    assert (2 * late.sync_bits).tolist() == managed.sync_bits.tolist()
    assert (late.joules.to_numpy() < managed.joules.to_numpy()).all()
    assert (late.waiting_seconds.to_numpy() > managed.waiting_seconds.to_numpy()).all()


@pytest.mark.slow
def test_seconds_and_joules_end_a_run(tmp_path: Path) -> None:
    whole = run("network=lte", out=tmp_path / "whole")
    seconds, joules = whole.rounds.simulated_seconds[1], whole.rounds.joules[0]
    found = run("network=lte", f"budget.seconds={seconds}", "rounds=null", out=tmp_path / "seconds")
    assert found.summary["status"] == "budget" and len(found.rounds) == 2
    found = run("network=lte", f"budget.joules={joules / 2}", "rounds=null", out=tmp_path / "joules")
    assert found.summary["status"] == "budget" and len(found.rounds) == 1
    same_numbers(whole, run("network=lte", f"budget.seconds={100 * seconds}", out=tmp_path / "enough"))


@pytest.mark.parametrize("on_deadline", ["drop", "partial"])
def test_a_round_is_over_at_its_deadline_though_a_model_is_still_coming(on_deadline: str, tmp_path: Path) -> None:
    (tmp_path / "slow.csv").write_text("client,downlink_mbps\n0,0.1\n")  # its model takes half a minute
    found = run(
        f"client_profile={tmp_path / 'slow.csv'}", "network=lte", "network.jitter_ms=0", "network.round_deadline_s=6",
        f"network.on_deadline={on_deadline}", out=tmp_path / "run",
    )  # fmt: skip
    assert found.rounds.simulated_seconds.tolist() == [6, 12, 18]
    late = found.clients[found.clients.client == 0]
    assert late.failed.all() and late.sync_bits.tolist() == 3 * [int((6 - 0.035) * 1e5)]  # LTE's latency is 35 ms
    assert late.transfer_seconds.tolist() == pytest.approx(3 * [6], abs=2e-5)
    assert late.joules.tolist() == pytest.approx(3 * [1.95 * 5.965], rel=1e-4)
    spent = found.clients[["compute_seconds", "transfer_seconds", "waiting_seconds"]].sum(axis=1)
    assert spent.tolist() == pytest.approx(9 * [6])
    assert found.rounds.sync_bits.iloc[-1] == found.clients.sync_bits.sum()


@pytest.mark.parametrize("on_deadline", ["drop", "partial"])
def test_a_client_tells_of_its_labels_once_its_model_is_there(on_deadline: str, tmp_path: Path) -> None:
    """And not in every round that is over before."""
    (tmp_path / "slow.csv").write_text("client,downlink_mbps\n0,0.1\n")
    keys = [
        f"client_profile={tmp_path / 'slow.csv'}", "network=lte", "network.jitter_ms=0", "network.round_deadline_s=6",
        f"network.on_deadline={on_deadline}",
    ]  # fmt: skip
    plain = run(*keys, out=tmp_path / "plain")
    told = run(*keys, "strategy.logit_adjustment=1", out=tmp_path / "told")
    assert told.rounds.simulated_seconds.tolist() == [6, 12, 18]
    more = told.clients.sync_bits - plain.clients.sync_bits
    known = told.clients.client != 0
    assert more[known].tolist() == [320, 320, 0, 0, 0, 0]
    assert more[~known].tolist() == [0, 0, 0]  # as much of its model has come
    assert told.clients.joules[~known].tolist() == plain.clients.joules[~known].tolist()


def test_a_model_is_not_there_before_its_client_could_tell_of_its_labels(tmp_path: Path) -> None:
    (tmp_path / "profile.csv").write_text("client,downlink_mbps,uplink_mbps,latency_ms\n0,1000,1000,0\n")
    keys = ["network=custom", "network.downlink_mbps=1", "network.latency_ms=0", "clients=2", "rounds=1"]
    keys += ["network.uplink_mbps=0.001", f"client_profile={tmp_path / 'profile.csv'}"]
    size = run(*keys, out=tmp_path / "free").clients.sync_bits.max() // 2
    keys.append(f"network.round_deadline_s={size / 1e6 + 0.1}")  # labels take 0.32 seconds
    plain = run(*keys, out=tmp_path / "plain").clients
    told = run(*keys, "strategy.logit_adjustment=1", out=tmp_path / "told").clients
    assert plain.sync_bits[1] == size and told.sync_bits[1] == size - 1
    assert told.sync_bits[0] == plain.sync_bits[0] + 320


@pytest.mark.slow
def test_joules_end_a_run_when_they_are_spent_and_not_before(tmp_path: Path) -> None:
    keys = ["network=lte", "rounds=9", "clients_per_round=1", "eval_every=5", "partition.holdout=0.3"]
    whole = run(*keys, out=tmp_path / "whole")
    joules = whole.rounds.joules
    found = run(*keys, f"budget.joules={(joules[5] + joules[6]) / 2}", out=tmp_path / "run")
    assert len(found.rounds) == 7 and found.summary["status"] == "budget"
    assert found.rounds.joules.tolist() == joules[:7].tolist()
    assert found.rounds.test_accuracy.iloc[-1] == found.summary["final_test_accuracy"]
    assert len(flsplit.run([f"resume={tmp_path / 'run'}"]).rounds) == 7


@pytest.mark.parametrize(
    ("cell", "line"),
    [("0", "uplink_mbps must be above 0, got 0"), ("nan", "uplink_mbps must be above 0"), ("-1", "must be above 0")],
)
def test_a_profile_without_a_link_is_refused(
    cell: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profile.csv").write_text(f"client,uplink_mbps\n1,{cell}\n")
    keys = ["network=wifi", f"client_profile={tmp_path / 'profile.csv'}", f"out={tmp_path / 'run'}"]
    assert cli.main([*SMALL, "engine=inline", *keys]) == 2
    assert line in capsys.readouterr().err


@pytest.mark.some
@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["network=gsm"], "network must be one of"),
        (["network=lte", "network.uplink_mbps=0"], "network.uplink_mbps must be a number above 0, or [least, largest]"),
        (["network=lte", "network.uplink_mbps=[5,1]"], "network.uplink_mbps must be a number above 0, or [least"),
        (["network=lte", "network.uplink_mbps=[1,2,3]"], "network.uplink_mbps must be a number above 0"),
        (["network=lte", "network.latency_ms=-1"], "network.latency_ms must be a number at least 0"),
        (["network=lte", "network.flops=nan"], "network.flops must be a number above 0"),
        (["network=lte", "network.flops=fast"], "network.flops must be a number"),
        (["network=lte", "network.server_flops=0"], "network.server_flops must be above 0, or null, got 0"),
        (["network=lte", "network.round_deadline_s=-3"], "network.round_deadline_s must be above 0, or null, got -3"),
        (["network=lte", "network.on_deadline=wait"], "network.on_deadline must be one of drop, partial, got 'wait'"),
        (["network=lte", "network.mbps=3"], "unknown key network.mbps"),
        (["network=none", "network.flops=1"], "network.flops"),
        (["budget.seconds=10"], "budget.seconds needs a network"),
        (["network=lte", "budget.joules=0"], "budget.joules must be above 0, or null, got 0"),
        (["strategy=fedbuff"], "strategy=fedbuff needs a network that says how long things take, such as network=lte"),
        (["strategy=fedbuff", "network=lte", "strategy.buffer=0"], "strategy.buffer must be at least 1, got 0"),
        (
            ["network=lte", "network.round_deadline_s=3", "strategy=splitfed_v2"],
            "network.round_deadline_s must be null for strategy=splitfed_v2",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    keys: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*SMALL, "engine=inline", *keys, f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("flsplit: ") and said.count("\n") == 1 and line in said
    assert not (tmp_path / "run").exists()
