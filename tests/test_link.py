"""Quantiser and channel in whole runs: what their columns hold, and that their random numbers are the same again."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.cut import cut_after
from test_repeatability import same_numbers

import flsplit
from flsplit import cli

SMALL = [
    "engine=inline", "clients=3", "rounds=3", "batch_size=8", "dataset.train_limit=90", "dataset.test_limit=40",
    "partition=iid", "compressor=adc", "compressor.ratio=0.3",
]  # fmt: skip
BOTH = [
    "quantizer=uniform", "quantizer.bits=6", "quantizer.rounding=stochastic", "quantizer.at_eval=true",
    "channel=bitflip", "channel.ebn0_db=[3,6]", "channel.fading=rayleigh", "channel.coherence=2",
    "channel.at_eval=true",
]  # fmt: skip
LOST = [
    "quantizer=uniform", "quantizer.bits=6", "channel=bitflip", "channel.rate=0.0005", "channel.checksum=true",
    "channel.packet_bytes=64",
]  # fmt: skip
AGAIN = ["channel=erasure", "channel.retransmit=true", "channel.loss=0.25", "channel.packet_bytes=64"]


@pytest.mark.slow
def test_models_are_evaluated_clean_and_through_the_link(tmp_path: Path) -> None:
    clean = flsplit.run([*SMALL, "channel=awgn", "channel.snr_db=-10", f"out={tmp_path / 'clean'}"])
    keys = [*SMALL, "channel=awgn", "channel.snr_db=-10", "channel.at_eval=true", "metrics=[accuracy,macro_f1]"]
    both = flsplit.run([*keys, f"out={tmp_path / 'both'}"])
    own = ["test_link_loss", "test_link_accuracy", "test_link_macro_f1"]
    assert set(own) < set(both.rounds.columns) and not set(own) & set(clean.rounds.columns)
    assert (clean.rounds[["test_loss", "test_accuracy"]] == both.rounds[["test_loss", "test_accuracy"]]).all(None)
    assert (both.rounds.test_link_loss != both.rounds.test_loss).all()
    assert both.summary["final_test_link_accuracy"] == both.rounds.test_link_accuracy.iloc[-1]
    quiet = flsplit.run([*keys, "channel.snr_db=190", f"out={tmp_path / 'quiet'}"])
    assert quiet.rounds.test_link_loss.tolist() == pytest.approx(quiet.rounds.test_loss.tolist(), rel=1e-5)


def test_messages_of_an_evaluation_are_those_of_training(tmp_path: Path) -> None:
    """A message is what a fading gain or a range is drawn for, so how many samples it has is no matter of speed."""
    keys = [
        *SMALL[:-2],
        "compressor=base",
        "rounds=1",
        "channel=rayleigh",
        "channel.outage_db=8",
        "channel.at_eval=true",
    ]
    losses = [
        flsplit.run([*keys, f"compressor.at_eval={one}", f"out={tmp_path / one}"]).rounds.test_link_loss.iloc[-1]
        for one in ("true", "false")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_compressor_is_in_the_link_where_it_says_so(tmp_path: Path) -> None:
    keys = [*SMALL, "channel=awgn", "channel.snr_db=190", "channel.at_eval=true", "compressor.at_eval=true"]
    run = flsplit.run([*keys, f"out={tmp_path / 'run'}"])
    assert run.rounds.test_link_loss.tolist() == pytest.approx(run.rounds.test_loss.tolist(), rel=1e-5)


@pytest.mark.slow
def test_what_is_sent_again_has_a_column(tmp_path: Path) -> None:
    plain = flsplit.run([*SMALL, f"out={tmp_path / 'plain'}"])
    again = flsplit.run([*SMALL, *AGAIN, f"out={tmp_path / 'again'}"])
    assert plain.summary["retransmitted_bits"] == 0 and not plain.rounds.retransmitted_bits.any()
    sent = again.summary["uplink_bits"] + again.summary["downlink_bits"]
    assert again.summary["retransmitted_bits"] / sent == pytest.approx(1 / 3, rel=0.1)
    assert again.rounds.retransmitted_bits.iloc[-1] == again.clients.retransmitted_bits.sum()
    assert again.rounds.retransmitted_bits.is_monotonic_increasing
    for column in ("train_loss", "test_loss", "uplink_bits", "downlink_bits", "wire_bytes"):
        assert again.rounds[column].tolist() == plain.rounds[column].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("link", [BOTH, LOST, AGAIN], ids=["both", "lost", "again"])
def test_a_run_over_a_link_goes_on_to_the_same_numbers(link: list[str], tmp_path: Path) -> None:
    whole = flsplit.run([*SMALL, *link, f"out={tmp_path / 'whole'}"])
    with cut_after(2), pytest.raises(KeyboardInterrupt):
        flsplit.run([*SMALL, *link, f"out={tmp_path / 'cut'}"])
    same_numbers(whole, flsplit.run([f"resume={tmp_path / 'cut'}"]))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(("strategy", "link"), [("splitfed_v1", LOST), ("splitfed_v2", BOTH)])
def test_ray_and_inline_are_the_same_over_a_link(strategy: str, link: list[str], tmp_path: Path) -> None:
    keys = [*SMALL[1:], *link, f"strategy={strategy}"]
    same_numbers(
        flsplit.run([*keys, "engine=ray", f"out={tmp_path / 'ray'}"]),
        flsplit.run([*keys, "engine=inline", f"out={tmp_path / 'one'}"]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("link", [BOTH, LOST], ids=["both", "lost"])
def test_stacked_clients_meet_the_same_link(link: list[str], tmp_path: Path) -> None:
    """In two rounds of a step, after which Adam makes much of what another order of sums rounds; other draws: 7e-4."""
    keys = [*SMALL[:-2], *link, "quantizer.bits=12", "rounds=2", "local_steps=1"]
    alone, stacked = (flsplit.run([*keys, f"engine.stack={n}", f"out={tmp_path / str(n)}"]) for n in (1, 3))
    assert stacked.rounds.train_loss.tolist() == pytest.approx(alone.rounds.train_loss.tolist(), rel=1e-4)
    assert stacked.rounds.wire_bytes.tolist() == alone.rounds.wire_bytes.tolist()


@pytest.mark.some
def test_a_stacked_client_whose_numbers_turn_infinite_fails_where_a_single_one_does(tmp_path: Path) -> None:
    keys = [*SMALL[:-2], "clients=5", "batch_size=4", "compressor=base", "channel=bitflip", "channel.rate=3e-5"]
    alone, stacked = (flsplit.run([*keys, f"engine.stack={n}", f"out={tmp_path / str(n)}"]) for n in (1, 3))
    assert alone.clients.reason.str.contains("its smashed activations are not finite after").any()
    for column in ("samples", "uplink_bits", "downlink_bits", "reason"):
        assert stacked.clients[column].tolist() == alone.clients[column].tolist()


@pytest.mark.some
@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["quantizer=uniform", "quantizer.bits=0"], "quantizer.bits must be in [1, 16], got 0"),
        (["quantizer=uniform", "quantizer.bits=17"], "quantizer.bits must be in [1, 16], got 17"),
        (["quantizer=uniform", "quantizer.bit=7"], "unknown key quantizer.bit"),
        (["quantizer=fp8", "quantizer.format=e3m4"], "quantizer.format must be one of e4m3, e5m2, got 'e3m4'"),
        (["channel=awgn", "channel.snr_db=nan"], "channel.snr_db must be"),
        (["channel=awgn", "channel.snr_db=[1]"], "channel.snr_db must be"),
        (["channel=bitflip", "channel.rate=1.5"], "channel.rate must be in [0, 1], got 1.5"),
        (["channel=bitflip"], "one of channel.rate and channel.ebn0_db must be given"),
        (["channel=erasure", "channel.loss=-0.1"], "channel.loss must be in [0, 1], got -0.1"),
        (["channel=erasure", "channel.loss=1", "channel.retransmit=true"], "channel.loss must be in [0, 1), got 1"),
        (["channel=awgn", "quantizer=uniform"], "channel=awgn puts values on the air as they are"),
        (["channel=rayleigh", "quantizer=fp16", "quantizer.up=false"], "channel=rayleigh puts values on the air"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    keys: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*SMALL, *keys, f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("flsplit: ") and said.count("\n") == 1 and line in said
    assert not (tmp_path / "run").exists()
