"""The grid over Ray actors: who works on what, and what a process that dies, or never starts, costs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from flwr.app import ConfigRecord, MessageType, RecordDict
from helpers.echo import app

from flsplit.engine import processes, session
from flsplit.engine.grid import OwnGrid
from flsplit.engine.inline import InlineGrid
from flsplit.engine.ray import RayGrid
from flsplit.errors import RunFailed
from flsplit.transport.ray_hub import RayHub

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("kept")]
CLIENTS = 5


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    """A Ray with two CPUs and, as far as Ray knows, a GPU."""
    import ray

    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, runtime_env=ENVIRONMENT)
    yield
    ray.shutdown()


ENVIRONMENT = {"env_vars": {"PYTHONPATH": os.pathsep.join(p for p in __import__("sys").path if p)}}


@pytest.fixture
def grid() -> Iterator[RayGrid]:
    """With two processes that are both up, however long a busy machine takes for that."""
    made = made_grid({"CPU": 1.0})
    wait_until(lambda: all(member.up for member in made._processes._members))
    yield made
    made.close()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def made_grid(resources: dict[str, float], workers: int = 2) -> RayGrid:
    return RayGrid(app, CLIENTS, RayHub(), workers, resources)


def ask(grid: OwnGrid, orders: Mapping[int, str], ttl: float | None = None) -> dict[int, Any]:
    """Answers by client: what its node says, or why it failed."""
    nodes = dict(enumerate(grid.get_node_ids()))
    clients = {node: client for client, node in nodes.items()}
    messages = [
        grid.create_message(
            RecordDict({"flsplit": ConfigRecord({"order": order})}), MessageType.TRAIN, nodes[client], "", ttl
        )
        for client, order in orders.items()
    ]
    replies = grid.send_and_receive(messages, timeout=600)
    return {
        clients[reply.metadata.src_node_id]: reply.error.reason if reply.has_error() else reply.content["answer"]
        for reply in replies
    }


def everyone(order: str = "") -> dict[int, str]:
    return dict.fromkeys(range(CLIENTS), order)


def test_all_nodes_answer_and_keep_their_state(grid: RayGrid) -> None:
    first, second = ask(grid, everyone()), ask(grid, everyone())
    assert [first[c]["client"] for c in range(CLIENTS)] == list(range(CLIENTS))
    assert all(first[c]["asked"] == 1 and second[c]["asked"] == 2 for c in range(CLIENTS))
    assert len({first[c]["pid"] for c in first}) == 2


def test_a_client_prefers_the_process_that_it_was_in(grid: RayGrid) -> None:
    orders = everyone("sleep 0.05")
    first = ask(grid, orders)
    again = [ask(grid, orders) for _ in range(3)]
    same = sum(answers[c]["pid"] == first[c]["pid"] for answers in again for c in range(CLIENTS))
    assert same >= 9  # of 15: with 5 clients and 2 processes, one may have to move


def test_a_client_that_raises_is_an_answer(grid: RayGrid) -> None:
    answers = ask(grid, {**everyone(), 2: "raise"})
    assert answers[2].startswith("RuntimeError: told to")
    assert all(answers[c]["asked"] == 1 for c in range(CLIENTS) if c != 2)


def test_a_process_that_dies_in_a_message_costs_that_message(grid: RayGrid) -> None:
    before = ask(grid, everyone())
    answers = ask(grid, {**everyone(), 3: "die"})
    assert isinstance(answers[3], str) and "Actor" in answers[3]
    assert all(answers[c]["asked"] == 2 for c in range(CLIENTS) if c != 3)
    after = ask(grid, everyone())
    assert [after[c]["asked"] for c in range(CLIENTS)] == [3, 3, 3, 2, 3]
    wait_until(lambda: all(member.up for member in grid._processes._members))  # another one in its place
    alive = {answer["pid"] for answer in ask(grid, everyone("sleep 0.2")).values()}
    assert len(alive & {answer["pid"] for answer in before.values()}) == 1


def test_all_processes_may_die_at_once_and_again(grid: RayGrid) -> None:
    for _ in range(2):
        answers = ask(grid, everyone("die"))
        assert all(isinstance(answers[c], str) for c in range(CLIENTS))
    assert all(answer["asked"] == 1 for answer in ask(grid, everyone()).values())


def test_a_client_that_hangs_is_ended_and_the_others_are_not_held_up(grid: RayGrid) -> None:
    before = ask(grid, everyone())
    began = time.monotonic()
    answers = ask(grid, {**everyone(), 2: "sleep 300"}, ttl=5.0)
    assert 5 <= time.monotonic() - began < 200
    assert answers[2] == "it took longer than 5 s (client_timeout), and its process was ended"
    assert [c for c in range(CLIENTS) if not isinstance(answers[c], str)] == [0, 1, 3, 4]
    after = ask(grid, everyone())
    assert len({a["pid"] for a in before.values()} & {a["pid"] for a in after.values()}) == 1


@pytest.mark.parametrize(
    ("order", "reason"),
    [("leave", "ExitRaised: a plug-in or a library has raised SystemExit(3)"), ("interrupt", "KeyboardInterrupt: ")],
)
def test_a_client_that_leaves_is_an_answer(grid: RayGrid, order: str, reason: str) -> None:
    before = ask(grid, everyone())
    answers = ask(grid, {**everyone(), 1: order})
    assert answers[1].startswith(reason) and sum(isinstance(a, str) for a in answers.values()) == 1
    assert {a["pid"] for a in before.values()} == {a["pid"] for a in ask(grid, everyone()).values()}


def test_in_the_servers_process_it_is_the_same_answer(grid: RayGrid) -> None:
    answers = [ask(each, {**everyone(), 1: "leave"}) for each in (grid, InlineGrid(app, CLIENTS))]
    assert answers[0][1] == answers[1][1]
    assert [c for c in range(CLIENTS) if not isinstance(answers[1][c], str)] == [0, 2, 3, 4]


@pytest.mark.parametrize("noticed", [False, True])
def test_an_idle_process_that_is_killed_is_replaced(grid: RayGrid, noticed: bool) -> None:
    pids = {answer["pid"] for answer in ask(grid, everyone()).values()}
    before = list(grid._processes._members)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not noticed or not set(before) & set(grid._processes._members))
    answers, later = ask(grid, everyone()), ask(grid, everyone())
    failed = [c for c, answer in answers.items() if isinstance(answer, str)]
    assert len(failed) <= (0 if noticed else len(pids))  # those that were on their way
    assert not pids & {answer["pid"] for answer in later.values()}


def test_gpus_are_shared_out_as_ray_counts_them() -> None:
    import ray

    grid = made_grid({"CPU": 0.5, "GPU": 0.5})
    try:
        ask(grid, everyone())
        free = ray.available_resources()
        assert (free.get("CPU", 0), free.get("GPU", 0)) == (1.0, 0.0)
    finally:
        grid.close()


def test_where_there_is_no_room_one_line_says_what_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 1.0)
    grid = made_grid({"CPU": 7.0})
    try:
        with pytest.raises(RunFailed, match=r"no client process has started within 1 s: each asks for 7 CPU, the clu"):
            ask(grid, everyone())
    finally:
        grid.close()


def test_room_for_fewer_processes_is_enough() -> None:
    grid = made_grid({"CPU": 2.0}, workers=2)
    try:
        assert len({answer["pid"] for answer in ask(grid, everyone()).values()}) == 1
    finally:
        grid.close()


def test_processes_that_die_while_they_start_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DEATHS", 1)  # a busy machine takes its time for each
    grid = RayGrid(Unwilling(), CLIENTS, RayHub(), 1, {"CPU": 1.0})  # type: ignore[arg-type]
    try:
        with pytest.raises(RunFailed, match="client processes die while they start"):
            ask(grid, everyone())
    finally:
        grid.close()


class Unwilling:
    """Ends every process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_the_callers_ray_stays_up() -> None:
    import ray

    session.start_ray()
    session.leave_ray()
    assert ray.is_initialized()
