"""`messages`: flsplit over a SplitFed that sends every batch through Flower messages; both on Ray, with two CPUs.

flsplit has two one-thread workers, whose server waits; the other side (see `message_splitfed`) one one-thread client
process and a server that computes beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import flsplit
from experiments.bench import message_client, message_splitfed
from experiments.bench.case import Result, compare
from experiments.bench.workload import Workload
from flsplit.compose import compose
from flsplit.engine import quiet, session
from flsplit.engine.flower import Waiting
from flsplit.experiment import lay_out, prepare

CPUS = 2
DIGITS = ["clients=10", "partition=iid", "batch_size=32", "compressor=base", "rounds=5", "eval_every=5"]
GPU = Workload(size=224, batch=32, steps=10 * 10, device="cuda")  # ten steps a client


def run(*, pairs: int) -> Iterator[Result]:
    """vit_micro on the digits on the CPU, and DeiT-T at 224 px where there is a GPU."""
    what = "samples/s of 10 clients (splitfed_v1, base, Ray) over a SplitFed with every batch in Flower messages"
    with tempfile.TemporaryDirectory() as folder:
        keys = [*DIGITS, "device=cpu"]
        yield compare(
            "messages", what, lambda: ours(keys, Path(folder)), lambda: theirs(keys, Path(folder)), pairs=pairs,
            goal=2.3, at_least=True, note=f"vit_micro, digits, B=32, 5 rounds of one epoch, cpu, {CPUS} CPUs for Ray",
        )  # fmt: skip
    if torch.cuda.is_available():
        with GPU.made() as made:
            keys = made.keys(clients=10, rounds=2, eval_every=2)
            yield compare(
                "messages", what, lambda: ours(keys, made.folder), lambda: theirs(keys, made.folder), pairs=pairs,
                goal=5.0, at_least=True, note=f"{made.words}, 2 rounds of 10 steps, {CPUS} CPUs for Ray",
            )  # fmt: skip


def ours(keys: list[str], folder: Path) -> float:
    """Samples per second of flsplit, start-up and evaluation apart."""
    session.start_ray(cpus=CPUS)
    return float(flsplit.run(on_ray(keys, folder)).summary["samples_per_second"])


def theirs(keys: list[str], folder: Path) -> float:
    """Samples per second with messages, start-up apart; nothing is evaluated."""
    outcome = with_messages(on_ray(keys, folder))
    return outcome.samples / outcome.seconds


def on_ray(keys: list[str], folder: Path) -> list[str]:
    """The same experiment with one-thread processes on Ray, in a new folder."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    others = [key for key in keys if not key.startswith(("engine", "out="))]
    return [*others, "engine=ray", "engine.cpus_per_client=1", f"out={out}"]


def with_messages(keys: list[str]) -> message_splitfed.Outcome:
    """Run `message_splitfed` on Ray: one client process, which may use all CPUs and the GPU."""
    from flwr.simulation import run_simulation

    prepared = prepare(compose(keys))
    lay_out(prepared)
    plan, server = prepared.plan, ServerApp()
    outcomes: list[message_splitfed.Outcome] = []

    @server.main()
    def _main(grid: Grid, context: Context) -> None:
        outcomes.append(message_splitfed.serve(Waiting(grid), plan.to_json()))

    quiet()
    session.start_ray(cpus=CPUS)
    threads = torch.get_num_threads()
    resources = {"num_cpus": CPUS, "num_gpus": 1.0 if plan.device == "cuda" else 0.0}
    try:
        run_simulation(server, message_client.app, plan.config.clients, backend_config={"client_resources": resources})
    finally:
        torch.set_num_threads(threads)
        session.leave_ray()
    return outcomes[0]
