"""The same configuration gives the same numbers: whatever the engine and the placement, and after a kill at any moment.

Configurations and moments are drawn; `FLSPLIT_SEED=N` draws others, `FLSPLIT_DRAWS=N` as many.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers.program import Program

import flsplit

SEED = int(os.environ.get("FLSPLIT_SEED", "0"))
COUNT = int(os.environ.get("FLSPLIT_DRAWS", "10"))
CHAINS, KILLS = 1, 4  # runs on Ray, and how often each is killed
MOST_CLIENTS = 7
PARTITIONS = (
    ["partition=iid"],
    ["partition=dirichlet", "partition.alpha=0.3"],
    ["partition=dirichlet", "partition.alpha=1", "partition.holdout=0.2"],
)
COMPRESSORS = (
    ["compressor=base"], ["compressor=topk"], ["compressor=randtopk"], ["compressor=adc", "compressor.ratio=0.3"],
    ["compressor=c3sl"], ["compressor=bottlenet", "compressor.ratio=0.3"],
    ["compressor=fedlite"], ["compressor=splitfc"],
)  # fmt: skip
STRATEGIES = (
    ["strategy=splitfed_v1"], ["strategy=splitfed_v2"], ["strategy=splitfed_v2", "strategy.turn=step"],
    ["strategy=splitfed_v3"], ["strategy=sequential"], ["strategy=parallel"],
    ["strategy=parallel", "strategy.sync=round"], ["strategy=splitfed_v1", "strategy.aggregator=fedadam"],
    ["strategy=splitfed_v1", "strategy.max_update_norm=0.5"], ["strategy=fedavg"],
)  # fmt: skip
BOTH_PLACEMENTS = ("strategy=splitfed_v1", "strategy=splitfed_v3")
QUANTIZERS = (
    [], [], [], ["quantizer=bf16"], ["quantizer=uniform", "quantizer.rounding=stochastic"],
    ["quantizer=uniform", "quantizer.bits=4", "quantizer.down=false", "quantizer.at_eval=true"],
)  # fmt: skip
CHANNELS = (
    [], ["channel=erasure", "channel.retransmit=true", "channel.loss=0.2", "channel.packet_bytes=99"],
    ["channel=erasure", "channel.loss=0.2", "channel.burst=2", "channel.fill=last"],
)  # fmt: skip
FLIPS = [  # where codes go both ways; of other numbers they would soon make infinities, and a run of failed clients
    "channel=bitflip", "channel.ebn0_db=[5,9]", "channel.fading=rayleigh", "channel.coherence=2",
    "channel.at_eval=true",
]  # fmt: skip
ANALOGUE = (
    ["channel=awgn", "channel.snr_db=[0,9]", "channel.at_eval=true"],
    ["channel=rayleigh", "channel.coherence=3"],
)
FAULTS = ([], [], ["faults.nan=0.2"], ["faults.dropout=0.2", "faults.flip=0.3"], ["faults.crash=0.2"])


def drawn(number: int) -> tuple[list[str], list[str]]:
    """A configuration, and keys that change none of its numbers."""
    draw = random.Random(f"{SEED}-{number}")
    clients = draw.randint(3, MOST_CLIENTS)
    strategy = draw.choice(STRATEGIES)
    keys = [
        f"clients={clients}", f"clients_per_round={draw.randint(3, clients)}", f"rounds={draw.randint(2, 4)}",
        "dataset.train_limit=150", "dataset.test_limit=20", f"batch_size={draw.choice([4, 8])}",
        f"optimizer_state={draw.choice(['persist', 'reset'])}", f"augment={draw.choice(['none', 'paper'])}",
        f"eval_every={draw.choice([1, 2])}", f"seed={draw.randint(0, 99)}", *draw.choice(PARTITIONS), *strategy,
        *(draw.choice(COMPRESSORS) if strategy != ["strategy=fedavg"] else []), *draw.choice(FAULTS),
        *draw.choice(([], ["local_steps=2"])),
    ]  # fmt: skip
    quantizer = draw.choice(QUANTIZERS)
    codes = "quantizer=uniform" in quantizer and "quantizer.down=false" not in quantizer
    others = (FLIPS,) if codes else () if quantizer else ANALOGUE
    keys += [*quantizer, *draw.choice((*CHANNELS, *others))]
    other = [f"strategy.placement={draw.choice(['central', 'replica'])}"] if strategy[0] in BOTH_PLACEMENTS else []
    return keys, other


def same_numbers(a: flsplit.Run, b: flsplit.Run) -> None:
    for name in ("rounds", "clients"):
        x, y = (getattr(run, name).drop(columns="seconds", errors="ignore") for run in (a, b))
        pd.testing.assert_frame_equal(x, y, check_exact=True)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("number", range(COUNT), ids=lambda number: f"{SEED}-{number}")
def test_engines_and_placements_give_the_same_numbers(number: int, tmp_path: Path) -> None:
    keys, other = drawn(number)
    inline = flsplit.run([*keys, "engine=inline", f"out={tmp_path / 'inline'}"])
    same_numbers(inline, flsplit.run([*keys, *other, "engine=ray", f"out={tmp_path / 'ray'}"]))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(COUNT), ids=lambda number: f"{SEED}-{number}")
def test_a_kill_at_any_moment_changes_no_number(number: int, tmp_path: Path) -> None:
    keys, other = drawn(number)
    keys += [*other, "engine=inline", "rounds=5"]
    keys.remove(next(key for key in keys if key.startswith("rounds=")))
    out, moment = tmp_path / "killed", random.Random(f"kill {SEED}-{number}").random()
    program = Program([*keys, f"out={out}"], tmp_path)
    deadline = time.monotonic() + 600
    while not (out / "config.yaml").exists():  # before that there is no run
        assert program.code is None and time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(moment**2)
    program.kill()
    whole = flsplit.run([*keys, f"out={tmp_path / 'whole'}"])
    same_numbers(whole, flsplit.run([f"resume={out}"]))


def said_in(path: Path) -> str:
    """The text of a file, if it is there."""
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("number", range(CHAINS), ids=lambda number: f"{SEED}-{number}")
def test_a_run_on_ray_that_is_killed_over_and_over_changes_no_number(number: int, tmp_path: Path) -> None:
    keys, other = drawn(number)
    keys = [key for key in keys if not key.startswith("rounds=")] + [*other, "rounds=40"]
    out, draw = tmp_path / "killed", random.Random(f"kill on Ray {SEED}-{number}")
    for _ in range(KILLS):
        typed = [f"resume={out}"] if (out / "config.yaml").exists() else [*keys, "engine=ray", f"out={out}"]
        program = Program(typed, tmp_path)
        while program.code is None and f"process {program.pid} " not in said_in(out / ".lock"):
            time.sleep(0.01)
        program.wait(draw.uniform(0, 6))
        program.kill()
        assert program.code in (0, -signal.SIGKILL), program.said
    whole = flsplit.run([*keys, "engine=inline", f"out={tmp_path / 'whole'}"])
    same_numbers(whole, flsplit.run([f"resume={out}"]))
