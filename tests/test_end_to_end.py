"""Whole runs on small real data: every compressor, both engines, every strategy."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from reference import Setting

import compressors
import flsplit
import strategies
from flsplit.compose import compose
from flsplit.errors import UserError
from flsplit.record.tables import CLIENTS, PARTITION, ROUNDS
from flsplit.server.checkpoint import Checkpoints
from flsplit.server.summary import peak_megabytes, spread
from flsplit.split.side import SideState
from flsplit.transport.hub import LocalHub, ModelLost

SMALL = [
    "clients=5", "clients_per_round=3", "rounds=2", "batch_size=8", "dataset.train_limit=160",
    "dataset.test_limit=60", "partition.alpha=0.3",
]  # fmt: skip
OPTIONS = {"adc": ["compressor.ratio=0.3"], "bottlenet": ["compressor.ratio=0.3"]}
SUMMARY = {
    "status", "rounds", "samples", "final_test_accuracy", "best_test_accuracy", "own_test_accuracy", "xi",
    "uplink_bits", "downlink_bits", "wire_bytes", "sync_bits", "retransmitted_bits", "seconds", "samples_per_second",
    "peak_rss_mb", "skew", "classes", "data", "weights", "device", "seed", "repeatable", "versions",
}  # fmt: skip


def small(out: Path, *more: str) -> flsplit.Run:
    return flsplit.run([*SMALL, *more, f"out={out}"])


def same_numbers(a: pd.DataFrame, b: pd.DataFrame) -> None:
    columns = [c for c in a.columns if c != "seconds"]
    pd.testing.assert_frame_equal(a[columns], b[columns], check_exact=True)


EACH = {  # its messages from process to process
    f"central-{compressor}": ["strategy.placement=central", f"compressor={compressor}", *OPTIONS.get(compressor, [])]
    for compressor in compressors.available()
}
EVERY = {
    strategy: [f"strategy={strategy}", *(["network=lte"] if strategy == "fedbuff" else [])]
    for strategy in strategies.available()
}
MORE = {
    "v2-step": ["strategy=splitfed_v2", "strategy.turn=step", "compressor=bottlenet", *OPTIONS["bottlenet"]],
    "parallel-round": ["strategy=parallel", "strategy.sync=round", "compressor=topk"],
    "v1-stacked": ["engine.stack=2"],
}
HARD = ["clients=7", "clients_per_round=3", "partition.alpha=0.1"]
BOTH = {name: [*SMALL, *HARD, *keys] for name, keys in {**EACH, **EVERY, **MORE}.items()}
ALONE = {
    "splitfed_v1": Setting(compressor="adc", options=(("ratio", 0.3),), rounds=3),
    "splitfed_v2": Setting(compressor="bottlenet", options=(("ratio", 0.3),), rounds=3),
}


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("name", BOTH)
def test_ray_and_inline_give_the_same_numbers(name: str, tmp_path: Path) -> None:
    inline, ray = (flsplit.run([*BOTH[name], f"engine={e}", f"out={tmp_path / e}"]) for e in ("inline", "ray"))
    same_numbers(inline.rounds, ray.rounds)
    same_numbers(inline.clients, ray.clients)
    assert not inline.clients.failed.any()
    assert inline.rounds.train_loss.notna().all()


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("strategy", ALONE)
def test_one_client_on_ray_is_a_plain_training_loop(strategy: str, tmp_path: Path) -> None:
    flsplit.run([*ALONE[strategy].overrides(), f"strategy={strategy}", "engine=ray", f"out={tmp_path / 'run'}"])
    state = Checkpoints(tmp_path / "run" / "checkpoint").load()
    assert state is not None
    torch.set_num_threads(1)
    expected_client, expected_server, _ = reference.centralized(ALONE[strategy])
    assert torch.equal(state.client_model.weights, expected_client)
    assert torch.equal(state.server_model.weights, expected_server)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
def test_the_command_gives_the_same_numbers_on_ray(tmp_path: Path) -> None:
    inline, ray = (small(tmp_path / e, f"engine={e}") for e in ("inline", "ray"))
    same_numbers(inline.rounds, ray.rounds)
    same_numbers(inline.clients, ray.clients)


@pytest.mark.slow
def test_clients_as_they_come_bring_the_same_bits(tmp_path: Path) -> None:
    arrival = small(tmp_path / "a", "engine=inline", "strategy=splitfed_v2", "strategy.order=arrival")
    random = small(tmp_path / "r", "engine=inline", "strategy=splitfed_v2")
    bits = ["samples", "uplink_bits", "downlink_bits", "sync_bits"]
    pd.testing.assert_frame_equal(arrival.rounds[bits], random.rounds[bits])
    assert random.summary["repeatable"] is True and arrival.summary["repeatable"] is False


def test_a_run_leaves_what_the_contract_says(tmp_path: Path) -> None:
    run = small(tmp_path / "run", "engine=inline", "eval_every=2", "rounds=3", "partition.holdout=0.2")
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert files == {
        "config.yaml", "rounds.parquet", "clients.parquet", "partition.parquet", "summary.json", "checkpoint",
    }  # fmt: skip
    assert list(run.rounds.columns) == ROUNDS.names and list(run.clients.columns) == CLIENTS.names
    partition = pd.read_parquet(tmp_path / "run" / "partition.parquet")
    assert list(partition.columns) == PARTITION.names
    assert partition["count"].sum() < 160 and (partition["count"] > 0).all()
    assert set(run.summary) == SUMMARY and run.summary["status"] == "completed"
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == run.summary

    rounds, clients = run.rounds, run.clients
    assert rounds["round"].tolist() == [1, 2, 3]
    assert rounds.test_accuracy.isna().tolist() == [True, False, False]  # every second one, and the last
    assert clients.groupby("round").client.count().tolist() == [3, 3, 3]
    per_round = clients.groupby("round")[["samples", "uplink_bits", "downlink_bits", "sync_bits"]].sum().cumsum()
    np.testing.assert_array_equal(per_round.to_numpy(), rounds[per_round.columns].to_numpy())
    for name in ("samples", "uplink_bits", "downlink_bits", "wire_bytes", "sync_bits"):
        assert rounds[name].dtype == np.int64 and run.summary[name] == rounds[name].iloc[-1]
    assert rounds.test_accuracy.dropna().between(0, 1).all()
    assert clients.test_accuracy[clients["round"] > 1].notna().any()  # on held-out parts


@pytest.mark.slow
def test_every_client_is_tested_on_its_own_part_in_the_end(tmp_path: Path) -> None:
    """Also those that did not take part in the last round, with the last model."""
    keys = ["engine=inline", "partition.holdout=0.3", "rounds=2", "partition.alpha=1"]
    some = small(tmp_path / "some", *keys).summary["own_test_accuracy"]
    assert some.keys() == {"mean", "worst_decile", "spread"}
    run = small(tmp_path / "all", *keys, "clients_per_round=5")
    last = run.clients[run.clients["round"] == 2].test_accuracy
    assert len(last) == 5 and last.notna().all()
    expected = {"mean": last.mean(), "worst_decile": last.min(), "spread": last.std(ddof=0)}
    assert run.summary["own_test_accuracy"] == pytest.approx(expected)
    assert small(tmp_path / "none", "engine=inline").summary["own_test_accuracy"] is None


def test_the_worst_decile_is_of_the_worst_tenth() -> None:
    assert spread([]) is None
    found = spread([1.0] * 18 + [0.5, 0.25])
    assert found == pytest.approx({"mean": 0.9375, "worst_decile": 0.375, "spread": np.std([1.0] * 18 + [0.5, 0.25])})


def test_each_client_sends_its_bits_by_the_formula(tmp_path: Path) -> None:
    """Section 2 of the design, worked out by hand for `base` and `adc` on the digits (N=17, D=64, L=10)."""
    for name, sent, extra in (("base", 8 * 17 * 64, 8 * 4), ("adc", 4 * 8 * 64, 8 * (4 + 2))):
        options = ["compressor.ratio=0.25"] if name == "adc" else []
        run = small(tmp_path / name, "engine=inline", f"compressor={name}", "local_steps=3", *options)
        whole = run.clients[run.clients.samples == 3 * 8]
        assert len(whole) and (whole.uplink_bits == 3 * (sent * 32 + extra)).all()
        assert (whole.downlink_bits == 3 * sent * 32).all()
        client_model = 64 * 12 + 64 + 64 + 17 * 64 + 3 * (4 * 64 + (64 + 1) * 192 + 65 * 64 + 65 * 128 + 129 * 64)
        assert (run.clients.sync_bits == 2 * 32 * client_model).all()


def test_xi_is_the_mean_of_both_ratios_to_base(tmp_path: Path) -> None:
    base, adc = (small(tmp_path / c, "engine=inline", f"compressor={c}").rounds.iloc[-1] for c in ("base", "adc"))
    assert base.xi == 1
    ratios = adc.uplink_bits / base.uplink_bits, adc.downlink_bits / base.downlink_bits
    assert adc.xi == pytest.approx(sum(ratios) / 2, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        ["strategy=splitfed_v1"],
        ["strategy=splitfed_v2"],
        ["strategy=splitfed_v2", "strategy.turn=step"],
        ["strategy=parallel", "strategy.sync=round"],
        ["engine.stack=4"],
        ["strategy=splitfed_v1", "compressor.name=helpers.leaving"],
        ["engine.stack=4", "compressor.name=helpers.leaving"],
    ],
    ids=" ".join,
)
def test_a_failing_client_is_left_out_and_named(keys: list[str], tmp_path: Path) -> None:
    run = flsplit.run([
        "engine=inline", "clients=6", "rounds=2", "dataset.train_limit=300", "partition=pathological",
        "compressor=base", "compressor.name=helpers.failing", *keys, f"out={tmp_path / 'run'}",
    ])  # fmt: skip
    partition = pd.read_parquet(tmp_path / "run" / "partition.parquet")
    with_three = set(partition[partition.label == 3].client)
    failed = set(run.clients[run.clients.failed].client)
    assert failed == with_three and 0 < len(failed) < 6
    rows = run.clients[run.clients.failed]
    assert rows.train_loss.isna().all()
    good = run.clients[~run.clients.failed].sync_bits.unique()
    assert len(good) == 1 and (rows.sync_bits * 2 == good[0]).all()  # received a model, brought none back


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_what_leaves_at_the_central_host_leaves_it_to_the_others(engine: str, tmp_path: Path) -> None:
    run = flsplit.run([
        f"engine={engine}", "strategy=splitfed_v2", "clients=3", "rounds=1", "dataset.train_limit=100",
        "partition=pathological", "compressor=base", "compressor.name=helpers.leaving", "+compressor.at_server=true",
        f"out={tmp_path / 'run'}",
    ])  # fmt: skip
    partition = pd.read_parquet(tmp_path / "run" / "partition.parquet")
    with_three = set(partition[partition.label == 3].client)
    assert set(run.clients[run.clients.failed].client) == with_three and 0 < len(with_three) < 3
    assert run.clients.reason.dropna().str.contains("ExitRaised").all()


@pytest.mark.slow
def test_a_client_whose_model_is_lost_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = LocalHub.take

    def lose(self: LocalHub, keys: Sequence[str]) -> dict[str, SideState]:
        if "1.1/client/2" in keys:
            raise ModelLost("it is gone")
        return take(self, keys)

    monkeypatch.setattr(LocalHub, "take", lose)
    run = small(tmp_path / "run", "engine=inline", "clients_per_round=5")
    failed = run.clients[run.clients.failed]
    assert failed[["round", "client"]].to_numpy().tolist() == [[1, 2]]
    assert failed.uplink_bits.item() > 0 and failed.train_loss.isna().all()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_the_others_go_on_where_clients_share_a_model(strategy: str, tmp_path: Path) -> None:
    run = flsplit.run([
        "engine=inline", "clients=6", "rounds=2", "dataset.train_limit=300", "partition=pathological", "batch_size=8",
        "compressor=base", "compressor.name=helpers.failing", f"strategy={strategy}", f"out={tmp_path / 'run'}",
    ])  # fmt: skip
    partition = pd.read_parquet(tmp_path / "run" / "partition.parquet")
    with_three = set(partition[partition.label == 3].client)
    rows = run.clients.set_index(["round", "client"])
    assert set(run.clients[run.clients.failed].client) == with_three
    for client, count in partition.groupby("client")["count"].sum().items():
        steps = rows.loc[(1, client), "samples"] // 8
        assert steps < count // 8 if client in with_three else steps == count // 8


@pytest.mark.slow
def test_a_run_whose_clients_all_fail_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from flsplit.cli import main

    out = tmp_path / "run"
    code = main([
        "engine=inline", "clients=2", "rounds=2", "partition=iid", "compressor=base", "compressor.name=helpers.failing",
        f"out={out}",
    ])  # fmt: skip
    assert code == 1
    said, log = "RuntimeError: there is a 3", out / "error.log"
    line = f"flsplit: every client failed in round 1; client 0: {said}; the traceback is in {log}; "
    assert f"{line}resume={out} goes on from here\n" in capfd.readouterr().err
    assert 'failing.py", line' in log.read_text() and f"{said}\nand more" in log.read_text()
    assert json.loads((out / "summary.json").read_text())["status"] == "failed"


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(("engine", "strategy"), [("inline", "splitfed_v1"), ("ray", "splitfed_v2")])
def test_pretrained_deit_learns_real_photographs(
    engine: str, strategy: str, tmp_path: Path, cifar100: Path, deit_tiny_weights: Path
) -> None:
    run = flsplit.run([
        f"engine={engine}", f"strategy={strategy}", "dataset=cifar100", f"dataset.path={cifar100}", "clients=2",
        "dataset.train_limit=100", "dataset.test_limit=50", "model=deit_tiny", "model.image_size=48",
        f"model.pretrained={deit_tiny_weights}", "rounds=3", f"out={tmp_path / 'run'}", "partition=iid",
        "batch_size=25", "lr=3e-4",
    ])  # fmt: skip
    assert run.rounds.train_loss.is_monotonic_decreasing


@pytest.mark.slow
def test_memory_is_that_of_the_process_itself(tmp_path: Path) -> None:
    """Linux hands a child its parent's `ru_maxrss`."""
    ballast = bytearray(b"x" * 2**30)
    code = "from flsplit.server.summary import peak_megabytes; print(peak_megabytes())"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert len(ballast) and 50 < float(child.stdout) < 900 < peak_megabytes()


def test_memory_is_in_decimal_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: "VmPeak:\t 1 kB\nVmHWM:\t 500000 kB\nThreads:\t1")
    assert peak_megabytes() == 512
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=500_000))
    for platform, megabytes in (("freebsd", 512), ("darwin", 0.5)):
        monkeypatch.setattr(sys, "platform", platform)
        assert peak_megabytes() == megabytes


@pytest.mark.slow
def test_bf16_differs_from_fp32_in_rounding_alone(tmp_path: Path) -> None:
    few = ["rounds=1", "dataset.train_limit=24", "dataset.test_limit=4"]  # a CPU may have to emulate it
    fp32, bf16 = (
        small(tmp_path / precision, "engine=inline", *few, f"precision={precision}") for precision in ("fp32", "bf16")
    )
    losses = [run.rounds.train_loss.to_numpy() for run in (fp32, bf16)]
    assert not np.array_equal(*losses)
    np.testing.assert_allclose(*losses, rtol=0.02)
    for name in ("uplink_bits", "downlink_bits", "sync_bits"):
        assert fp32.summary[name] == bf16.summary[name]  # messages and models are fp32 on the wire


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["splitfed_v1", "parallel"])
def test_compiled_models_differ_in_rounding_alone(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as `compile` has it, with gradients and in-place states; the kernels, which take minutes, left out."""
    in_place, compiled = torch.nn.Module.compile, []

    def trace(module: torch.nn.Module) -> None:
        compiled.append(module)
        in_place(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    keys = ["engine=inline", "eval_every=2", f"strategy={strategy}"]
    plain = small(tmp_path / "plain", *keys)
    assert not compiled
    ours = small(tmp_path / "compiled", *keys, "compile=true")
    assert len(compiled) >= 2
    assert ours.rounds.train_loss.tolist() == pytest.approx(plain.rounds.train_loss.tolist(), rel=1e-4)
    assert ours.rounds.uplink_bits.tolist() == plain.rounds.uplink_bits.tolist()


def test_a_machine_without_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, and there is no no-such-compiler here"):
        compose(["compile=true"])


def test_a_gpu_needs_a_compiler_of_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's, whatever there is for C++."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda program: "/usr/bin/g++" if program == "g++" else None)
    with pytest.raises(UserError, match=r"needs a C compiler, and there is no gcc or clang here"):
        compose(["compile=true"])
