"""A Ray cluster that runs already: two nodes give the numbers of one, and the end of one is not the end of a run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.program import Program
from ray import nodes as ray_nodes
from ray.util import placement_group_table

import flsplit
import flsplit.experiment
from flsplit.compose import compose
from flsplit.engine import processes
from flsplit.errors import UserError
from flsplit.record.run import read_run

SMALL = ["clients=6", "clients_per_round=4", "rounds=3", "batch_size=8", "dataset.train_limit=120",
         "dataset.test_limit=40"]  # fmt: skip


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with a CPU each, on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_two_nodes_give_the_numbers_of_one(two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes, alive = set[str](), set[str]()
    given = processes.Processes._give_next

    def spy(self: Any, member: Any) -> None:
        alive.update(node["NodeID"] for node in ray_nodes())
        homes.add(next(iter(placement_group_table(member.room)["bundles_to_node_id"].values())))
        given(self, member)

    monkeypatch.setattr(processes.Processes, "_give_next", spy)
    keys = [*SMALL, "strategy.placement=central"]
    inline = flsplit.run([*keys, "engine=inline", f"out={tmp_path / 'inline'}"])
    ray = flsplit.run([*keys, f"engine.address={two_nodes.address}", f"out={tmp_path / 'ray'}"])
    assert len(alive) == 2 and homes == alive  # each has a CPU for one process
    pd.testing.assert_frame_equal(inline.rounds.drop(columns="seconds"), ray.rounds.drop(columns="seconds"))
    pd.testing.assert_frame_equal(inline.clients, ray.clients)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_the_end_of_a_node_is_not_the_end_of_the_run(two_nodes: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    keys = ["clients=8", "rounds=8", "compressor=base", "dataset.train_limit=240", "dataset.test_limit=20"]
    program = Program([*keys, f"engine.address={two_nodes.address}", f"out={out}"], tmp_path)
    try:
        while not (out / "checkpoint" / "state.json").exists():  # after the first round
            assert program.code is None
            time.sleep(0.1)
        two_nodes.remove_node(next(iter(two_nodes.worker_nodes)), allow_graceful=False)
        assert program.wait() == 0, program.said
    finally:
        program.kill()
    failed = read_run(out).clients.groupby("round").failed.sum()
    assert len(failed) == 8 and (failed < 8).all()
    assert (failed > 0).sum() <= 2 and failed.iloc[-1] == 0  # in the round of its end, or at the turn of two


@pytest.mark.parametrize("address", ["nowhere", "host:", ":1", "host:port", "host:0", "host:70000"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match=r"^engine.address must be auto or the HOST:PORT of a Ray cluster, got '"):
        compose([f'engine.address="{address}"'])


def test_a_cluster_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=rf"^engine.address=127.0.0.1:{port} does not answer .*ray start --head"):
        compose([f"engine.address=127.0.0.1:{port}"])


def test_it_is_a_key_of_the_engine_ray() -> None:
    with pytest.raises(UserError, match=r"^unknown key engine.address"):
        compose(["engine=inline", "engine.address=auto"])
    assert os.environ.get("RAY_ADDRESS") is None and compose([]).engine.address is None
