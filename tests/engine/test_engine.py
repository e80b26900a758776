"""Engines: how many clients run at a time, with how much, and that this changes no number."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import flsplit
from flsplit import engine
from flsplit.compose import compose
from flsplit.ledger.prices import Tally
from flsplit.split.side import SideState
from flsplit.transport.hub import LocalHub, connect

SMALL = ["clients=5", "rounds=2", "batch_size=8", "dataset.train_limit=120", "dataset.test_limit=40"]


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
    assert engine.gpu_share(config, {"GPU": 2.0}, 8) == 0.25
    assert engine.gpu_share(config, {"GPU": 1.0}, 3) == 0.3333
    assert engine.gpu_share(config, {"GPU": 4.0}, 2) == 1.0
    assert engine.gpu_share(config, {}, 3) == 0.0
    assert engine.gpu_share(given, {"GPU": 1.0}, 8) == 0.3


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_the_scheduler_gets_the_fractions_and_they_change_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.simulation.ray_transport import ray_actor

    from flsplit.engine import dispatch

    seen: list[tuple[dict[str, float], int]] = []
    original = ray_actor.BasicActorPool.__init__

    def spy(self: object, actor_type: object, client_resources: dict[str, float], actor_kwargs: object) -> None:
        original(self, actor_type, client_resources, actor_kwargs)
        seen.append((dict(client_resources), self.actors_capacity))  # type: ignore[attr-defined]

    monkeypatch.setattr(ray_actor.BasicActorPool, "__init__", spy)
    woken: list[int] = []
    wait = dispatch._Woken.wait
    monkeypatch.setattr(dispatch._Woken, "wait", lambda *args: woken.append(1) or wait(*args))
    inline = flsplit.run([*SMALL, "engine=inline", f"out={tmp_path / 'inline'}"]).rounds
    ray = flsplit.run([*SMALL, "engine=ray", "engine.cpus_per_client=0.5", f"out={tmp_path / 'ray'}"]).rounds
    pd.testing.assert_frame_equal(inline.drop(columns="seconds"), ray.drop(columns="seconds"), check_exact=True)
    [(resources, actors)] = seen
    assert resources["num_cpus"] == 0.5 and resources["num_gpus"] == 0
    assert actors == 2 * (os.cpu_count() or 1)
    assert len(woken) >= 3  # the warm-up and two rounds, by `flsplit.engine.dispatch`


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
