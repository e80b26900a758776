"""Simulated time in whole runs: what its columns hold."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from helpers.cut import cut_after
from helpers.timed import FEDBUFF, SMALL, TIME, UNLIKE, run
from test_repeatability import same_numbers

import flsplit
from flsplit.assembly import Costs, assembly_for
from flsplit.compose import compose
from flsplit.experiment import execute, prepare
from flsplit.report.page import write_report


def test_one_client_by_hand(tmp_path: Path) -> None:
    keys = [
        "clients=1",
        "network=custom",
        "network.server_flops=1e10",
        "network.send_power_w=2",
        "network.compute_power_w=3",
    ]
    found = run(*keys, out=tmp_path / "run")
    plan = prepare(compose([*SMALL[1:], *keys, "engine=inline", f"out={tmp_path / 'o'}"])).plan
    assembly = assembly_for(plan.to_json())
    work, steps = Costs(assembly).work(0, 8), 12
    model = 32 * assembly.client_side().size
    bits = found.rounds[["uplink_bits", "downlink_bits"]].iloc[0]
    compute = steps * (work.forward + work.backward) / 1e10  # conf/network/custom.yaml: 10 and 50 Mbit/s, 20 ms
    transfer = (bits.uplink_bits + model) / 1e7 + (bits.downlink_bits + model) / 5e7 + 2 * (steps + 1) * 0.02
    first = found.clients.iloc[0]
    assert first.compute_seconds == pytest.approx(compute, rel=1e-12)
    assert first.transfer_seconds == pytest.approx(transfer, rel=1e-12)
    assert first.waiting_seconds == pytest.approx(steps * work.server / 1e10, rel=1e-9)
    assert first.joules == pytest.approx(3 * compute + 2 * (bits.uplink_bits + model) / 1e7, rel=1e-12)
    whole = compute + transfer + steps * work.server / 1e10
    assert found.rounds.simulated_seconds.tolist() == pytest.approx([whole, 2 * whole, 3 * whole], rel=1e-12)
    assert found.rounds.joules.tolist() == pytest.approx([first.joules * n for n in (1, 2, 3)], rel=1e-12)
    assert found.summary["simulated_seconds"] == found.rounds.simulated_seconds.iloc[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        ["splitfed_v1"], ["splitfed_v2"], ["splitfed_v2", "strategy.turn=step"], ["splitfed_v3"], ["sequential"],
        ["parallel"], ["parallel", "strategy.sync=round"], ["fedavg"], ["centralized"],
    ],
    ids=lambda keys: "-".join(keys).replace("strategy.", ""),
)  # fmt: skip
def test_every_strategy_keeps_time_and_changes_no_other_number(strategy: list[str], tmp_path: Path) -> None:
    keys = [f"strategy={strategy[0]}", *strategy[1:]]
    plain, timed = run(*keys, out=tmp_path / "plain"), run(*keys, *UNLIKE, out=tmp_path / "timed")
    times = ["simulated_seconds", "joules"]
    pd.testing.assert_frame_equal(
        plain.rounds.drop(columns=["seconds", *times]), timed.rounds.drop(columns=["seconds", *times])
    )
    assert plain.rounds[times].isna().all(None) and plain.clients[TIME].isna().all(None)
    assert (timed.rounds.simulated_seconds.diff().dropna() > 0).all()
    lasted = timed.rounds.set_index("round").simulated_seconds.diff().fillna(timed.rounds.simulated_seconds[0])
    own = timed.clients
    spent = own.compute_seconds + own.transfer_seconds + own.waiting_seconds
    assert spent.tolist() == pytest.approx(lasted[own["round"]].tolist(), rel=1e-9)  # nobody's time is lost
    assert timed.rounds.joules.iloc[-1] == pytest.approx(own.joules.sum(), rel=1e-12)


@pytest.mark.slow
def test_what_is_sent_again_takes_time(tmp_path: Path) -> None:
    again = ["channel=erasure", "channel.retransmit=true", "channel.loss=0.3", "channel.packet_bytes=64"]
    plain, lossy = (run("network=lte", *keys, out=tmp_path / name) for name, keys in (("a", []), ("b", again)))
    more = lossy.clients.transfer_seconds.sum() - plain.clients.transfer_seconds.sum()
    bits = lossy.summary["retransmitted_bits"]
    assert bits / 12.74e6 < more < bits / 5.64e6


@pytest.mark.slow
def test_a_profile_has_devices(tmp_path: Path) -> None:
    (tmp_path / "profile.csv").write_text("client,uplink_mbps,flops\n1,0.1,1e6\n")
    found = run("network=wifi", f"client_profile={tmp_path / 'profile.csv'}", out=tmp_path / "run").clients
    slow, fast = found[found.client == 1].iloc[0], found[found.client == 0].iloc[0]
    assert slow.compute_seconds == pytest.approx(1e4 * fast.compute_seconds)
    assert slow.transfer_seconds > 10 * fast.transfer_seconds


JOINT = [
    "strategy=parallel", "rounds=1", "network=custom", "network.latency_ms=0", "seed=1",
    "network.send_power_w=1", "network.receive_power_w=1", "network.compute_power_w=0", "network.downlink_mbps=10",
]  # fmt: skip


@pytest.mark.parametrize("fault", ["faults.nan=0.7", "faults.crash=0.4"])
@pytest.mark.parametrize("scope", ["client", "cohort"])
def test_whoever_fails_in_a_step_of_all_has_moved_the_gradients_that_are_in_its_sum(
    scope: str, fault: str, tmp_path: Path
) -> None:
    """And no others: in bits, seconds and joules."""
    found = run(*JOINT, f"compressor.scope={scope}", fault, out=tmp_path / "run").clients
    model = found.sync_bits.max() / 9  # which comes once; then its gradient in four steps, both ways
    finished = found.samples // 8 - found.reason.str.contains("its gradients are not finite").fillna(False)
    assert found.failed.any() and finished.max() == 4
    assert found.sync_bits.tolist() == (model * (1 + 2 * finished)).tolist()
    bits = found.uplink_bits + found.downlink_bits + found.sync_bits  # both ways at 10 Mbit/s, with 1 W
    assert found.transfer_seconds.tolist() == pytest.approx((bits / 1e7).tolist(), rel=1e-12)
    assert found.joules.tolist() == pytest.approx((bits / 1e7).tolist(), rel=1e-12)


@pytest.mark.slow
def test_the_report_shows_time_and_energy(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, keys in (("timed", UNLIKE), ("plain", [])):
        execute(compose([*SMALL, "engine=inline", *keys, f"out={tmp_path / name}"]))
    said = capfd.readouterr().out.split("simulated time")
    assert len(said) == 2 and "clients' energy" in said[1]  # of one of the two
    write_report([tmp_path / "timed", tmp_path / "plain"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Over simulated time",
        "Over the clients' energy",
        "simulated time (seconds)",
        "energy of all clients",
    ):
        assert words in page
    assert page.count("Where each client's simulated time went") == 1
    write_report([tmp_path / "plain"], tmp_path / "plain.html")
    assert "imulated" not in (tmp_path / "plain.html").read_text()


@pytest.mark.slow
def test_one_shared_model_takes_batches_in_turn_whoever_comes_first(tmp_path: Path) -> None:
    keys = ["strategy=splitfed_v2", "network=custom", "network.flops=1e12", "network.server_flops=1e6", "rounds=1"]
    whole, step, arrival = (
        run(*keys, f"strategy.{how}={value}", out=tmp_path / value).rounds.simulated_seconds[0]
        for how, value in (("turn", "round"), ("turn", "step"), ("order", "arrival"))
    )
    assert arrival == pytest.approx(step, rel=0.02) and arrival == pytest.approx(whole, rel=0.05)


A_MEGABIT = [  # a second for a million bits either way, and none for anything else
    "network=custom", "network.uplink_mbps=1", "network.downlink_mbps=1", "network.latency_ms=0", "network.flops=1e30",
    "network.send_power_w=1", "network.receive_power_w=0",
]  # fmt: skip


def uneven(*keys: str, out: Path) -> flsplit.Run:
    """Of clients with unlike parts of the data."""
    small = [key for key in SMALL if key != "partition=iid"]
    return flsplit.run([*small, "engine=inline", "seed=1", *keys, f"out={out}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "failed"),
    [
        (["compressor.scope=cohort", "strategy=parallel", "strategy.sync=round", "faults.crash=0.5"], True),
        (["strategy.max_update_norm=2", "strategy.on_outlier=fail"], True),
        (["strategy.logit_adjustment=1"], False),
        (["channel=erasure", "channel.loss=0.3", "channel.retransmit=true"], False),
        (["strategy=parallel", "channel=erasure", "channel.loss=0.3", "channel.retransmit=true"], False),
        (["strategy=fedavg", "faults.crash=0.5"], True),
    ],
    ids=["cohort", "outlier", "labels", "resent", "parallel", "fedavg"],
)
def test_all_bits_of_a_client_take_their_time_whatever_becomes_of_it(
    keys: list[str], failed: bool, tmp_path: Path
) -> None:
    found = uneven("rounds=1", *keys, *A_MEGABIT, out=tmp_path / "run").clients
    assert found.failed.any() == failed and not found.failed.all()
    bits = found[["uplink_bits", "downlink_bits", "sync_bits", "retransmitted_bits"]].sum(axis=1)
    assert found.transfer_seconds.tolist() == pytest.approx((bits / 1e6).tolist(), rel=1e-9)


@pytest.mark.slow
def test_who_says_what_labels_it_has_sends_that(tmp_path: Path) -> None:
    plain = run("rounds=1", *A_MEGABIT, out=tmp_path / "plain").clients
    said = run("rounds=1", *A_MEGABIT, "strategy.logit_adjustment=1", out=tmp_path / "said").clients
    assert (said.sync_bits - plain.sync_bits == 10 * 32).all()  # a number for each class
    assert (said.joules - plain.joules).tolist() == pytest.approx([320 / 1e6] * 3, rel=1e-6)


@pytest.mark.slow
def test_an_update_that_is_refused_has_come_up_before(tmp_path: Path) -> None:
    keys = ["strategy.max_update_norm=2", "strategy.on_outlier=fail"]
    found = uneven("rounds=1", *keys, out=tmp_path / "run").clients
    assert 0 < found.failed.sum() < 3 and found.sync_bits.nunique() == 1


@pytest.mark.slow
def test_in_lockstep_each_step_waits_for_what_is_sent_again_in_it(tmp_path: Path) -> None:
    keys = ["strategy=parallel", "strategy.sync=round", "rounds=1", "channel=erasure"]
    keys += ["channel.loss=0.3", "channel.burst=10", "channel.retransmit=true", *A_MEGABIT]
    found = run(*keys, out=tmp_path / "run").rounds.simulated_seconds.item()
    plan = prepare(compose([*SMALL, *keys, "engine=inline", f"out={tmp_path / 'o'}"])).plan
    assembly = assembly_for(plan.to_json())
    price, stages = Costs(assembly).prices(0).step(assembly.shape(8)), assembly.stages_at(None)
    resent = [[stages.resent(assembly.shape(8), key=(client, 1, step)) for client in range(3)] for step in range(4)]
    bits = 2 * 32 * assembly.client_side().size + 4 * (price.uplink_bits + price.downlink_bits)
    bits += sum(max(up for up, _ in step) + max(down for _, down in step) for step in resent)
    assert found == pytest.approx(bits / 1e6, rel=1e-9)


@pytest.mark.slow
def test_a_cohorts_server_works_on_the_clusters_of_all(tmp_path: Path) -> None:
    keys = ["compressor.scope=cohort", "strategy=parallel", "strategy.sync=round", "rounds=1", "network=custom"]
    keys += ["network.uplink_mbps=1e20", "network.downlink_mbps=1e20", "network.latency_ms=0", "network.flops=1e30"]
    keys += ["network.server_flops=1e9"]
    found = run(*keys, out=tmp_path / "run").rounds.simulated_seconds.item()
    plan = prepare(compose([*SMALL, *keys, "engine=inline", f"out={tmp_path / 'o'}"])).plan
    work = Costs(assembly_for(plan.to_json())).work(0, 8)
    clusters = [int(0.3**0.5 * samples) for samples in (8, 3 * 8)]  # 4 of a client's batch, 13 of all three
    assert found == pytest.approx(4 * work.server / clusters[0] * clusters[1] / 1e9, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [FEDBUFF, [*UNLIKE, "network.round_deadline_s=2", "network.on_deadline=partial"]])
def test_a_run_with_time_goes_on_to_the_same_numbers(keys: list[str], tmp_path: Path) -> None:
    whole = run(*keys, out=tmp_path / "whole")
    with cut_after(2), pytest.raises(KeyboardInterrupt):
        run(*keys, out=tmp_path / "cut")
    same_numbers(whole, flsplit.run([f"resume={tmp_path / 'cut'}"]))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("keys", [FEDBUFF, [*UNLIKE, "network.round_deadline_s=2", "network.on_deadline=partial"]])
def test_ray_and_inline_keep_the_same_time(keys: list[str], tmp_path: Path) -> None:
    same_numbers(flsplit.run([*SMALL, *keys, f"out={tmp_path / 'ray'}"]), run(*keys, out=tmp_path / "inline"))
