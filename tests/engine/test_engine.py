"""Engines: how many clients run at a time, with how much, and that this changes no number."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import ray
import torch

import flsplit
from flsplit import engine
from flsplit.compose import compose
from flsplit.engine import session
from flsplit.ledger.prices import Tally
from flsplit.split.side import SideState
from flsplit.transport.hub import LocalHub, connect

SMALL = ["clients=5", "rounds=2", "batch_size=8", "dataset.train_limit=120", "dataset.test_limit=40"]


@pytest.mark.some
@pytest.mark.parametrize(("cpus", "threads"), [(0.25, 1), (1, 1), (1.9, 1), (2, 2), (3.5, 3)])
def test_threads_follow_the_cpus_of_a_client(cpus: float, threads: int) -> None:
    assert compose(["engine=inline", f"engine.cpus_per_client={cpus}"]).engine.threads == threads


def test_workers_fit_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = compose(["clients=100"])

    def count(cuda: bool = False, **keys: object) -> int:
        return engine.workers(replace(config, engine=replace(config.engine, **keys)), cuda)

    assert count() == 16 and count(cpus_per_client=3) == 5 and count(cpus_per_client=0.5) == 32
    assert count(name="inline") == 1
    assert count(cuda=True) == 8  # auto: at most four clients a GPU
    assert count(cuda=True, gpus_per_client=0.5) == 4 and count(cuda=True, gpus_per_client=2.0) == 1
    assert engine.workers(replace(config, clients=3), False) == 3


def test_auto_gives_clients_a_share_of_the_gpus_there_are() -> None:
    config = compose([])
    given = replace(config, engine=replace(config.engine, gpus_per_client=0.3))
    assert session.gpu_share(config, {"GPU": 2.0}, 8) == 0.25
    assert session.gpu_share(config, {"GPU": 1.0}, 3) == 0.3333
    assert session.gpu_share(config, {"GPU": 4.0}, 2) == 1.0
    assert session.gpu_share(config, {}, 3) == 0.0
    assert session.gpu_share(given, {"GPU": 1.0}, 8) == 0.3


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("name", ["ray", "flower"])
def test_fractions_of_cpus_change_no_number(name: str, tmp_path: Path) -> None:
    if name == "flower":
        pytest.importorskip("flwr.simulation")
    inline = flsplit.run([*SMALL, "engine=inline", f"out={tmp_path / 'inline'}"]).rounds
    found = flsplit.run([*SMALL, f"engine={name}", "engine.cpus_per_client=0.7", f"out={tmp_path / name}"]).rounds
    pd.testing.assert_frame_equal(inline.drop(columns="seconds"), found.drop(columns="seconds"), check_exact=True)
    assert not ray.is_initialized()  # what was started has gone


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_ray_that_the_caller_has_started_stays_up(tmp_path: Path) -> None:
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}},
    )  # fmt: skip
    try:
        kept = ray.put("still here")
        flsplit.run([*SMALL, "rounds=1", "engine=ray", f"out={tmp_path / 'run'}"])
        assert ray.get(kept) == "still here"
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_python_call_leaves_the_threads_as_they_were(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    flsplit.run([*SMALL, "engine=inline", "rounds=1", f"out={tmp_path / 'run'}"])
    assert torch.get_num_threads() == 2


def test_a_local_hub_is_found_by_its_address_and_forgets_a_round() -> None:
    hub = LocalHub()
    assert connect(hub.address) is hub
    hub.put({key: SideState(torch.ones(2)) for key in ("a", "b", "c")})
    assert hub.get("a").weights.tolist() == [1, 1]
    assert hub.take(["b", "a"]).keys() == {"a", "b"}
    hub.get("c")
    hub.new_round()
    for key in ("a", "b", "c"):
        with pytest.raises(KeyError):
            hub.get(key)
    hub.close()
    with pytest.raises(RuntimeError, match="no hub"):
        connect(hub.address)


def test_progress_is_reported_a_few_times_a_second() -> None:
    class Host:
        asked = 0

        def mean_loss(self, client: int) -> float:
            self.asked += 1
            return 0.5

    hub, host, shown = LocalHub(), Host(), []
    hub.on_report = lambda: shown.append(hub.progress())
    for _ in range(1000):
        hub.report(3, Tally(steps=7), host)  # type: ignore[arg-type]
    assert len(shown) == host.asked == 1 and shown[0][3] == (Tally(steps=7), 0.5)
    hub.close()
