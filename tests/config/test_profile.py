"""Clients that differ: each does in a round what it would do in a run of its kind."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import flsplit
from flsplit.assembly import assembly_for
from flsplit.compose import compose
from flsplit.config.profile import Profile, read_profiles
from flsplit.errors import UserError
from flsplit.experiment import prepare
from flsplit.server.evaluation import Evaluator, Score

SMALL = [
    "engine=inline", "clients=3", "rounds=1", "batch_size=8", "dataset.train_limit=120", "dataset.test_limit=20",
    "partition=iid",
]  # fmt: skip


def run(out: Path, *keys: str) -> flsplit.Run:
    return flsplit.run([*SMALL, *keys, f"out={out}"])


def a_file(folder: Path, text: str) -> Path:
    path = folder / "profile.csv"
    path.write_text(text)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["replica", "central"])
@pytest.mark.parametrize(
    ("compressor", "key", "ratio", "value"),
    [
        ("adc", "ratio", 0.1, 0.1),
        ("topk", "rate", 0.03, 0.03),
        ("randtopk", "rate", 0.03, 0.03),
        ("c3sl", "group", 0.5, 2),
    ],
)
def test_each_client_does_what_it_would_do_among_its_like(
    compressor: str, key: str, ratio: float, value: float, placement: str, tmp_path: Path
) -> None:
    path = a_file(tmp_path, f"client, ratio, batch_size, local_steps, speed\n0,{ratio},,,\n1,,20,,\n2,,,7,0.5\n")
    keys = [f"compressor={compressor}", f"strategy.placement={placement}"]
    mixed = run(tmp_path / "mixed", *keys, f"client_profile={path}").clients
    alike = [
        run(tmp_path / "0", *keys, f"compressor.{key}={value}"),
        run(tmp_path / "1", *keys, "batch_size=20"),
        run(tmp_path / "2", *keys, "local_steps=4"),  # half of seven, rounded up
    ]
    for client, other in enumerate(alike):
        pd.testing.assert_series_equal(mixed.loc[client], other.clients.loc[client], check_exact=True)
    assert mixed.samples.tolist() == [40, 40, 32]


@pytest.mark.parametrize("link", [[], ["channel=erasure", "channel.loss=0.3", "channel.at_eval=true"]], ids=str)
def test_a_client_is_evaluated_at_its_own_ratio_and_in_messages_of_its_size(link: list[str], tmp_path: Path) -> None:
    path = a_file(tmp_path, "client,ratio,batch_size\n0,0.5,\n1,,4\n")
    keys = [*SMALL, "compressor=topk", "compressor.rate=0.02", "compressor.at_eval=true", *link]

    def score(client: int | None, *more: str) -> Score:
        assembly = assembly_for(prepare(compose([*keys, *more, f"out={tmp_path / 'o'}"])).plan.to_json())
        evaluator = Evaluator(assembly)
        models = assembly.client_side().state(moments=False), assembly.server_side().state(moments=False)
        found = evaluator.score(models, assembly.dataset.test, client=client)
        assert found is not None
        return found

    of_all, profile = score(None), f"client_profile={path}"
    assert score(None, profile) == score(2, profile) == of_all
    assert score(0, profile) == score(None, "compressor.rate=0.5") != of_all
    smaller = score(1, profile)
    assert smaller == score(None, "batch_size=4")
    if link:
        assert smaller.metrics != of_all.metrics


@pytest.mark.parametrize("strategy", ["splitfed_v1", "splitfed_v3"])
def test_who_keeps_all_is_scored_in_a_run_as_without_compression(strategy: str, tmp_path: Path) -> None:
    path = a_file(tmp_path, "client,ratio\n0,1\n1,1\n2,1\n")
    keys = ["compressor=topk", "compressor.rate=0.01", f"client_profile={path}", f"strategy={strategy}", "rounds=6"]
    keys += ["partition.holdout=0.4", "dataset.train_limit=300", "lr=0.003"]
    through, clean = (run(tmp_path / at, *keys, f"compressor.at_eval={at}") for at in ("true", "false"))
    assert through.clients.test_accuracy.tolist() == clean.clients.test_accuracy.tolist()
    if strategy == "splitfed_v3":  # whose global numbers are means over models of clients
        assert through.rounds.test_loss.tolist() == pytest.approx(clean.rounds.test_loss.tolist(), rel=1e-5)
    else:
        assert through.rounds.test_loss.tolist() != pytest.approx(clean.rounds.test_loss.tolist(), rel=1e-3)


@pytest.mark.some
@pytest.mark.parametrize("strategy", ["splitfed_v2", "splitfed_v3", "sequential", "parallel"])
def test_every_strategy_runs_clients_that_differ(strategy: str, tmp_path: Path) -> None:
    path = a_file(tmp_path, "client,ratio,batch_size\n0,0.1,16\n2,0.9,\n")
    clients = run(tmp_path / "run", f"strategy={strategy}", f"client_profile={path}").clients
    assert not clients.failed.any() and clients.uplink_bits[0] < clients.uplink_bits[1] < clients.uplink_bits[2]


@pytest.mark.slow
def test_a_resumed_run_does_not_need_the_file(tmp_path: Path) -> None:
    path = a_file(tmp_path, "client,ratio\n0,0.1\n")
    whole = run(tmp_path / "whole", "rounds=2", f"client_profile={path}")
    run(tmp_path / "cut", f"client_profile={path}")
    path.write_text("client,ratio\n0,0.9\n")
    resumed = flsplit.run([f"resume={tmp_path / 'cut'}", "rounds=2"])
    pd.testing.assert_frame_equal(whole.clients, resumed.clients)


def test_what_is_left_out_is_like_the_run(tmp_path: Path) -> None:
    path = a_file(tmp_path, "\ufeffclient,speed,ratio\n3,,0.25\n1,1,\n")
    assert read_profiles(path, 4) == {3: Profile(ratio=0.25), 1: Profile(speed=1.0)}


@pytest.mark.some
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("client,ratoi\n0,1\n", "unknown column 'ratoi'; did you mean ratio"),
        ("ratio\n0.1\n", "must have a column client"),
        ("", "must have a column client"),
        ("client,ratio\n0,1.5\n", "line 2: ratio must be above 0 and at most 1, got 1.5"),
        ("client,ratio\n0,nan\n", "line 2: ratio must be above 0"),
        ("client,ratio\n0,half\n", "line 2: ratio must be a number, got 'half'"),
        ("client,batch_size\n0,2.5\n", "line 2: batch_size must be a whole number"),
        ("client,local_steps\n0,1_0\n", "line 2: local_steps must be a whole number, got '1_0'"),
        ("client,speed\n\u0661,1\n", "line 2: client must be a whole number"),
        ("client,batch_size\n0,0\n", "line 2: batch_size must be at least 1"),
        ("client,speed\n0,0\n", "line 2: speed must be above 0"),
        ("client,speed\n3,1\n", "line 2: client must be between 0 and 2, got '3'"),
        ("client,speed\n,1\n", "line 2: client must be between 0 and 2"),
        ("client,speed\n0,1\n0,1\n", "line 3: client 0 has a row already"),
        ("client,speed\n0,1,2\n", "line 2 has more cells than the header"),
        ("client,ratio\n0,0.3\n", "compressor=base has the same ratio for all clients"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = a_file(tmp_path, text)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", "compressor=base", f"client_profile={path}")
    assert not (tmp_path / "run").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^client_profile: .*nothing\.csv cannot be read"):
        run(tmp_path / "run", f"client_profile={tmp_path / 'nothing.csv'}")


def test_groups_must_divide_the_batch(tmp_path: Path) -> None:
    path = a_file(tmp_path, "client,batch_size\n0,10\n")
    with pytest.raises(UserError, match="group must divide the batch size, got group 4 and batch size 10"):
        run(tmp_path / "run", "compressor=c3sl", f"client_profile={path}")
    path = a_file(tmp_path, "client,ratio\n0,0.3\n")
    with pytest.raises(UserError, match="c3sl needs a ratio of 1/R"):
        run(tmp_path / "run", "compressor=c3sl", f"client_profile={path}")
