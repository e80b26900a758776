"""Whole runs with `compressor.scope=cohort`: one client is as it was, several give the same numbers everywhere."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.cut import cut_after
from test_repeatability import same_numbers

import flsplit
from flsplit.errors import RunFailed, UserError
from flsplit.server.checkpoint import Checkpoints

SMALL = [
    "clients=3", "rounds=2", "batch_size=8", "dataset.train_limit=60", "dataset.test_limit=20", "partition.alpha=1",
    "compressor.ratio=0.3", "seed=3",
]  # fmt: skip
COHORT = [*SMALL, "compressor.scope=cohort"]
STRATEGIES = {
    "gradient": ["strategy=parallel"],
    "round": ["strategy=parallel", "strategy.sync=round"],
    "step": ["strategy=splitfed_v2", "strategy.turn=step"],
}
LINK = [
    "quantizer=uniform", "quantizer.bits=6", "quantizer.rounding=stochastic", "channel=erasure",
    "channel.retransmit=true", "channel.loss=0.25", "channel.packet_bytes=64",
]  # fmt: skip
BITS = ["uplink_bits", "downlink_bits", "wire_bytes", "xi"]


def models(out: Path) -> tuple[torch.Tensor, torch.Tensor]:
    state = Checkpoints(out / "checkpoint").load()
    assert state is not None
    return state.client_model.weights, state.server_model.weights


@pytest.mark.some
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_client_is_as_alone(strategy: str, tmp_path: Path) -> None:
    """To the bit, but for what is agreed upon: scores instead of clusters go up, these and tokens come down."""
    keys = [*SMALL, *STRATEGIES[strategy], "engine=inline", "clients=1"]
    runs = [flsplit.run([*keys, f"compressor.scope={s}", f"out={tmp_path / s}"]) for s in ("client", "cohort")]
    for ours, theirs in zip(models(tmp_path / "cohort"), models(tmp_path / "client")):
        assert torch.equal(ours, theirs)
    alone, cohort = (run.rounds.drop(columns=[*BITS, "seconds"]) for run in runs)
    pd.testing.assert_frame_equal(alone, cohort, check_exact=True)
    steps = alone.samples.iloc[-1] // 8  # of 8 samples, 4 clusters of 9 tokens
    up, down = (runs[1].summary[key] - runs[0].summary[key] for key in ("uplink_bits", "downlink_bits"))
    assert up == steps * (8 * 17 * 32 - 8 * 2) and down == steps * (8 * 2 + 4 * 8 * 4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_clients_and_their_bits(strategy: str, tmp_path: Path) -> None:
    """Batches of unlike sizes at the end of a round; every client's bits lie between those of one group and of all."""
    run = flsplit.run([*COHORT, *STRATEGIES[strategy], "engine=inline", f"out={tmp_path / 'run'}"])
    alone = flsplit.run([*SMALL, *STRATEGIES[strategy], "engine=inline", f"out={tmp_path / 'alone'}"])
    assert run.summary["samples"] == alone.summary["samples"]
    assert run.rounds.nominal_bits.tolist() == alone.rounds.nominal_bits.tolist()
    assert run.rounds.sync_bits.tolist() == alone.rounds.sync_bits.tolist()
    for client in run.clients.itertuples():
        steps = client.samples // 8
        before, vector = client.samples * (17 * 32 + 4), 9 * 64 * 32
        assert before + steps * vector < client.uplink_bits <= before + client.samples * vector
    ours = models(tmp_path / "run")
    assert all(torch.isfinite(weights).all() for weights in ours)
    assert not torch.equal(ours[1], models(tmp_path / "alone")[1])


@pytest.mark.parametrize("link", [[], LINK], ids=["plain", "link"])
@pytest.mark.slow
def test_a_run_goes_on_to_the_same_numbers(link: list[str], tmp_path: Path) -> None:
    keys = [*COHORT, *link, *STRATEGIES["step"], "engine=inline"]
    whole = flsplit.run([*keys, f"out={tmp_path / 'whole'}"])
    if link:
        assert whole.rounds.retransmitted_bits.iloc[-1] > 0
    with cut_after(1), pytest.raises(KeyboardInterrupt):
        flsplit.run([*keys, f"out={tmp_path / 'killed'}"])
    same_numbers(flsplit.run([f"resume={tmp_path / 'killed'}"]), whole)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ray_gives_the_same_numbers(strategy: str, tmp_path: Path) -> None:
    keys = [*COHORT, *STRATEGIES[strategy], "faults.crash=0.3", "seed=5", *LINK]
    ray, inline = (flsplit.run([*keys, f"engine={name}", f"out={tmp_path / name}"]) for name in ("ray", "inline"))
    same_numbers(ray, inline)


@pytest.mark.parametrize("fault", ["crash", "nan", "dropout"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.slow
def test_a_failing_client_spoils_nobody_else(strategy: str, fault: str, tmp_path: Path) -> None:
    keys = [*COHORT, *STRATEGIES[strategy], "engine=inline", f"faults.{fault}=0.3", "rounds=3", "seed=5"]
    run = flsplit.run([*keys, f"out={tmp_path / 'run'}"])
    rows = run.clients
    assert (rows.failed == rows.injected.notna()).all() and 0 < rows.failed.sum() < len(rows)
    if fault == "crash":  # what the clients had agreed upon before is counted, the step is not
        at = rows.failed & (rows.samples == 0)
        assert (rows.uplink_bits[at] == 8 * (17 * 32 + 4)).all()
    assert all(torch.isfinite(weights).all() for weights in models(tmp_path / "run"))


@pytest.mark.slow
def test_time_by_hand(tmp_path: Path) -> None:
    """Two messages more in every step, and all bits that were sent: 10 and 50 Mbit/s, 20 ms a message."""
    keys = [*COHORT, *STRATEGIES["round"], "engine=inline", "clients=2", "network=custom"]
    first = flsplit.run([*keys, f"out={tmp_path / 'run'}"]).clients.iloc[:2]
    for client in first.itertuples():
        model, messages = client.sync_bits / 2, 4 * (client.samples // 8) + 2
        transfer = (client.uplink_bits + model) / 1e7 + (client.downlink_bits + model) / 5e7 + messages * 0.02
        assert client.transfer_seconds == pytest.approx(transfer, rel=1e-9)


@pytest.mark.parametrize("share", ["equal", "pool"])
def test_a_budget_ends_within_a_step(share: str, tmp_path: Path) -> None:
    """Though nobody knows beforehand what a step will cost."""
    keys = [*COHORT, *STRATEGIES["round"], "engine=inline", "budget.base_epochs=1", f"budget.share={share}"]
    run = flsplit.run([*keys, "rounds=null", "eval_every=100", f"out={tmp_path / 'run'}"])
    assert run.summary["status"] == "budget"
    gamma = 60 * (17 * 64 * 32 * 2 + 4)
    spent = run.clients.groupby("client")[["uplink_bits", "downlink_bits"]].sum().sum(axis=1)
    step = 8 * (17 * 32 + 2 * 9 * 64 * 32 + 4) + 8 * 3 + 8 * 8 * 4  # at most
    if share == "equal":
        assert all(gamma // 3 <= bits < gamma // 3 + step for bits in spent)
    else:
        assert gamma <= spent.sum() < gamma + 3 * step


@pytest.mark.slow
def test_where_all_fail_the_run_ends(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="every client failed in round 1"):
        flsplit.run([*COHORT, "strategy=parallel", "engine=inline", "faults.nan=1", f"out={tmp_path / 'run'}"])


@pytest.mark.slow
def test_clients_have_one_ratio(tmp_path: Path) -> None:
    profile = tmp_path / "profile.csv"
    profile.write_text("client,batch_size,ratio\n0,4,\n1,,0.2\n")
    keys = [*COHORT, "strategy=parallel", "engine=inline", f"client_profile={profile}", f"out={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"client_profile: ratio must be empty with compressor\.scope=cohort"):
        flsplit.run(keys)
    assert not (tmp_path / "run").exists()
    profile.write_text("client,batch_size\n0,4\n")
    run = flsplit.run(keys)
    assert run.clients.samples.tolist()[0] % 8 in (0, 4)
