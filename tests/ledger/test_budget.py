"""The budget: a run stops within one step of it, and is the same run up to there."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pandas as pd
import pytest

import flsplit
from flsplit.compose import compose
from flsplit.errors import UserError

IMAGES = 96
SMALL = ["engine=inline", f"dataset.train_limit={IMAGES}", "dataset.test_limit=40", "batch_size=8", "eval_every=100"]
SAMPLE = 2 * 17 * 64 * 32 + 4  # bits of one sample of the digits without compression, up and down


def run(out: Path, *keys: str) -> flsplit.Run:
    return flsplit.run([*SMALL, f"out={out}", *keys])


@pytest.mark.some
@pytest.mark.parametrize(
    ("compressor", "charge"), product(["base", "adc", "topk", "c3sl", "bottlenet"], ["actual", "nominal"])
)
def test_one_client_stops_within_one_step_of_gamma(compressor: str, charge: str, tmp_path: Path) -> None:
    keys = [f"compressor={compressor}", "clients=1", "rounds=null", "budget.base_epochs=1.3", f"budget.charge={charge}"]
    found = run(tmp_path / "run", *keys)
    gamma = 1.3 * IMAGES * SAMPLE
    last = found.rounds.iloc[-1]
    spent = last.nominal_bits if charge == "nominal" else last.uplink_bits + last.downlink_bits
    step = spent / (last.samples / 8)
    assert gamma <= spent < gamma + step
    assert found.summary["status"] == "budget" and pd.notna(last.test_accuracy)
    assert found.rounds.test_accuracy.notna().sum() == 1


@pytest.mark.slow
def test_it_is_the_same_run_up_to_there(tmp_path: Path) -> None:
    budget = run(tmp_path / "budget", "clients=3", "rounds=null", "budget.base_epochs=0.7", "eval_every=1")
    plain = run(tmp_path / "plain", "clients=3", f"rounds={len(budget.rounds)}", "eval_every=1")
    whole = len(budget.clients.groupby("round").filter(lambda rows: len(rows) == 3)["round"].unique()) - 1
    assert whole >= 1
    pd.testing.assert_frame_equal(
        budget.rounds[:whole].drop(columns="seconds"), plain.rounds[:whole].drop(columns="seconds")
    )
    assert plain.summary["status"] == "completed" and budget.summary["samples"] < plain.summary["samples"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "models", "strategy"), [*product(["equal", "samples"], [False, True], ["splitfed_v1", "splitfed_v2"])]
)
def test_clients_share_it(share: str, models: bool, strategy: str, tmp_path: Path) -> None:
    keys = ["clients=4", "clients_per_round=3", "rounds=null", "budget.base_epochs=9", f"budget.share={share}"]
    found = run(tmp_path / "run", *keys, f"budget.count_models={models}", f"strategy={strategy}", "compressor=base")
    partition = pd.read_parquet(tmp_path / "run" / "partition.parquet").groupby("client")["count"].sum()
    gamma = 9 * IMAGES * SAMPLE
    shares = partition / IMAGES * gamma if share == "samples" else pd.Series(gamma / 4, index=range(4))
    sent = found.clients.groupby("client")[["uplink_bits", "downlink_bits", "sync_bits", "samples"]].sum()
    spent = sent.uplink_bits + sent.downlink_bits + (sent.sync_bits if models else 0)
    exchange = found.clients.sync_bits.max() if models else 0
    slack = 8 * SAMPLE + exchange + 1
    assert ((spent > shares - slack) & (spent < shares + slack)).all()
    assert found.summary["status"] == "budget"


@pytest.mark.slow
@pytest.mark.parametrize("share", ["equal", "pool"])
def test_what_is_sent_once_is_set_aside_once(share: str, tmp_path: Path) -> None:
    keys = ["clients=4", "clients_per_round=3", "rounds=null", "budget.base_epochs=4", f"budget.share={share}"]
    found = run(tmp_path / "run", *keys, "budget.count_models=true", "model.tune=lora", "compressor=base")
    clients = found.clients.assign(sent=lambda c: c.uplink_bits + c.downlink_bits + c.sync_bits)
    first, later = clients.sync_bits.max(), clients.sync_bits.min()
    assert first > 4 * later  # what LoRA leaves as it is comes down once
    gamma, sent = 4 * IMAGES * SAMPLE, clients.groupby("client").sent.sum()
    spent, share_of = (sent, gamma / 4) if share == "equal" else (sent.sum(), gamma)
    ends = 1 if share == "equal" else 3  # clients that end within a step each
    step = 8 * SAMPLE
    assert first > later + step  # so that one that is set aside in vain is seen
    assert ((spent > share_of - later * ends) & (spent < share_of + step * ends)).all()
    assert found.summary["status"] == "budget"


@pytest.mark.slow
@pytest.mark.some
@pytest.mark.parametrize("keys", [[], ["clients_per_round=3"], ["compressor=base", "strategy=splitfed_v2"]], ids=str)
@pytest.mark.parametrize("models", [False, True])
def test_a_pool_lasts_for_all_to_the_end(models: bool, keys: list[str], tmp_path: Path) -> None:
    keys = [*keys, "clients=4", "rounds=null", "budget.base_epochs=6.3", "budget.share=pool", "partition.alpha=0.5"]
    found = run(tmp_path / "run", *keys, f"budget.count_models={models}")
    rounds, clients = found.rounds, found.clients
    sent = clients.uplink_bits + clients.downlink_bits + (clients.sync_bits if models else 0)
    steps = -(-clients.samples // 8)
    slack = (sent / steps).groupby(clients["round"]).sum().iloc[-1]  # each client may end within a step of its part
    exchange = clients.sync_bits.groupby(clients["round"]).sum().max() if models else 0
    gamma = 6.3 * IMAGES * SAMPLE
    assert gamma - exchange <= sent.sum() < gamma + slack
    assert clients.groupby("round").size().eq(3 if "clients_per_round=3" in keys else 4).all()
    whole, last = (
        clients[clients["round"] == number].set_index("client").samples for number in (1, rounds["round"].max())
    )
    assert 0 < last.sum() < whole.sum() or (models and last.sum() == whole.sum())  # models left no room for a part
    assert found.summary["status"] == "budget"
    if "clients_per_round=3" not in keys:  # cut short for all alike: a part at which each of them is in its last step
        before_last_step = (last - 1) // 8 * 8
        assert (before_last_step / whole).max() < (last / whole).min() + 0.02


@pytest.mark.some
@pytest.mark.parametrize("tune", ["all", "frozen", "lora", "bias"])
def test_an_epoch_without_compression_is_an_epoch_whatever_clients_train(tune: str, tmp_path: Path) -> None:
    keys = ["clients=2", "partition=iid", "compressor=base", "rounds=null", "budget.base_epochs=2"]
    found = run(tmp_path / "run", *keys, f"model.tune={tune}")
    assert found.rounds.samples.tolist() == [IMAGES, 2 * IMAGES] and found.summary["xi"] == 1


@pytest.mark.some
@pytest.mark.parametrize("share", ["equal", "samples", "pool"])
def test_a_budget_that_buys_no_round_says_what_would(share: str, tmp_path: Path) -> None:
    keys = ["clients=3", "clients_per_round=2", "rounds=null", "budget.count_models=true", f"budget.share={share}"]
    with pytest.raises(
        UserError, match=r"^budget.base_epochs=0.001 does not pay for the models of a first round"
    ) as no:
        run(tmp_path / "none", *keys, "budget.base_epochs=0.001")
    assert not (tmp_path / "none").exists()
    bound = float(str(no.value).rpartition(" ")[2])
    with pytest.raises(UserError, match="does not pay"):
        run(tmp_path / "less", *keys, f"budget.base_epochs={0.99 * bound}")
    assert run(tmp_path / "more", *keys, f"budget.base_epochs={1.01 * bound}").summary["samples"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("share", ["equal", "pool"])
def test_who_began_in_a_round_before_has_its_share_as_well(share: str, tmp_path: Path) -> None:
    keys = ["clients=4", "clients_per_round=2", "strategy=fedbuff", "strategy.buffer=1", "network=lte", "seed=3"]
    found = run(tmp_path / "run", *keys, "rounds=null", "budget.base_epochs=6", f"budget.share={share}")
    clients, gamma = found.clients, 6 * IMAGES * SAMPLE
    sent = clients.uplink_bits + clients.downlink_bits
    step = sent.max() / (clients.samples / 8).max()
    assert found.summary["status"] == "budget" and sent.sum() < gamma + 4 * step
    assert (sent.groupby(clients.client).sum() <= (gamma if share == "pool" else gamma / 4) + 2 * step).all()


@pytest.mark.slow
def test_models_alone_use_up_a_pool(tmp_path: Path) -> None:
    keys = ["clients=3", "strategy=fedavg", "rounds=null", "budget.count_models=true", "budget.share=pool"]
    found = run(tmp_path / "run", *keys, "budget.base_epochs=30")
    sent = found.clients.sync_bits.groupby(found.clients["round"]).sum()
    assert len(sent) >= 2 and sent.sum() <= 30 * IMAGES * SAMPLE < sent.sum() + sent.iloc[0]
    assert found.rounds.samples.iloc[-1] == found.rounds.samples.iloc[0] * len(sent) > 0


@pytest.mark.slow
def test_it_goes_on_where_a_kill_cut_it_off(tmp_path: Path) -> None:
    keys = ["clients=2", "budget.base_epochs=1"]
    whole = run(tmp_path / "whole", *keys, "rounds=null")
    run(tmp_path / "cut", *keys, "rounds=2")
    resumed = flsplit.run([f"resume={tmp_path / 'cut'}", "rounds=null"])
    columns = [c for c in whole.rounds.columns if c not in ("seconds", "test_accuracy", "test_loss")]
    pd.testing.assert_frame_equal(whole.rounds[columns], resumed.rounds[columns])
    assert resumed.summary["status"] == whole.summary["status"] == "budget"
    again = flsplit.run([f"resume={tmp_path / 'cut'}"])
    assert len(again.rounds) == len(whole.rounds) and again.summary["status"] == "budget"


@pytest.mark.slow
def test_the_end_is_about_where_it_is_expected(tmp_path: Path) -> None:
    from flsplit.assembly import Assembly, Costs
    from flsplit.data.clients import save_clients
    from flsplit.experiment import prepare

    keys = [*SMALL, "clients=1", "rounds=null", "budget.base_epochs=2", f"out={tmp_path / 'run'}"]
    prepared = prepare(compose(keys))
    Path(prepared.plan.clients).parent.mkdir(parents=True)
    save_clients(Path(prepared.plan.clients), prepared.train, prepared.held)
    assert Costs(Assembly(prepared.plan)).expected_rounds() == 9  # xi is 0.235, and a round has all samples


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["rounds=null"],
            r"^rounds=null .* budget.base_epochs=EPOCHS, or with a network budget.seconds=.* budget.joules=",
        ),
        (["budget.base_epochs=0"], r"^budget.base_epochs must be above 0"),
        (["budget.base_epochs=nan"], r"^budget.base_epochs must be above 0"),
        (["budget.charge=actaul"], r"^budget.charge must be one of actual, nominal, .*did you mean actual\?$"),
        (["budget.share=half"], r"^budget.share must be one of equal, samples, pool"),
        (["budget.epochs=3"], r"^unknown key budget.epochs"),
    ],
)
def test_mistakes_are_named(keys: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(keys)


@pytest.mark.parametrize("share", ["equal", "pool"])
def test_a_model_that_came_in_part_is_set_aside_for_again(share: str, tmp_path: Path) -> None:
    """It begins anew in the next round, for which there may be too little left."""
    (tmp_path / "slow.csv").write_text("client,downlink_mbps,jitter_ms\n0,1.9,500\n")
    keys = [
        "clients=2", "partition=iid", "rounds=null", "compressor=adc", "compressor.ratio=0.05", "model.tune=lora",
        "network=custom", f"client_profile={tmp_path / 'slow.csv'}", "network.round_deadline_s=2.1", "seed=1",
        "budget.count_models=true", f"budget.share={share}",
    ]  # fmt: skip
    found = flsplit.run(
        [*SMALL[:1], "dataset.train_limit=40", "dataset.test_limit=20", "batch_size=4", "eval_every=100", *keys,
         "budget.base_epochs=3", f"out={tmp_path / 'run'}"]
    )  # fmt: skip
    own = found.clients
    charged = (own.uplink_bits + own.downlink_bits + own.sync_bits).groupby(own.client).sum()
    gamma = 3 * 40 * SAMPLE
    first = own.sync_bits[(own.client == 1) & (own["round"] == 1)].iloc[0]  # a whole first model, and one back
    assert own.sync_bits[own.client == 0].iloc[0] < first  # this one came in part
    step = own.uplink_bits.max()
    assert (charged < gamma / 2 + step).all() if share == "equal" else charged.sum() < gamma + 2 * step
