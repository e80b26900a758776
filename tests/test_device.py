"""What a GPU would be asked for, seen without one: steps and evaluations on torch's device `meta`.

A tensor there has a shape and no values, and does not go together with one on the CPU. So whatever is left on the CPU
by mistake, or waits for a value, fails; which numbers come out is for the tests on the CPU and on a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from compressors import hard_labels
from flsplit.assembly import Assembly
from flsplit.compose import compose
from flsplit.experiment import lay_out, prepare
from flsplit.server import evaluation
from flsplit.server.evaluation import Evaluator
from flsplit.split.messages import Uplink
from flsplit.split.side import SideState
from flsplit.split.stacked.trainer import Member, stacked_pass
from flsplit.split.trainer import LocalPass, local_pass

COMPRESSORS = ["base", "adc", "topk", "randtopk", "c3sl", "bottlenet", "fedlite", "splitfc"]
CLUSTERING = ("adc", "fedlite")  # K-means waits to know whether it is done
LINKS = [
    ["quantizer=uniform", "quantizer.rounding=stochastic", "quantizer.range=token", "channel=bitflip",
     "channel.rate=0.001", "channel.checksum=true"],
    ["quantizer=nf4", "channel=bitflip", "channel.ebn0_db=5", "channel.fading=rayleigh"],
    ["quantizer=fp8", "channel=erasure", "channel.loss=0.2", "channel.burst=4", "channel.fill=last"],
    ["quantizer=bf16", "channel=erasure", "channel.loss=0.2", "channel.retransmit=true"],
    ["quantizer=fp16", "channel=erasure", "channel.loss=0.2", "channel.protect=false"],
    ["channel=awgn", "channel.snr_db=[0,20]"],
    ["channel=rayleigh", "channel.knowledge=none"],
    ["channel=rayleigh", "channel.outage_db=3", "strategy.logit_adjustment=1"],
]  # fmt: skip
KEYS = ["engine=inline", "clients=2", "partition=iid", "batch_size=16", "dataset.train_limit=200",
        "dataset.test_limit=40", "augment=paper"]  # fmt: skip


class ValuesAsked(TorchDispatchMode):
    """Answers 1 to whoever asks for the value of a tensor without one, notes the file that asks; counts operations.

    Notes as well who brings a tensor from the CPU in a way that a GPU's host waits for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []
        self.brought: list[str] = []
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        options = kwargs or {}
        waits = str(options.get("device")) == "meta" and not options.get("non_blocking")
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and waits:
            self.brought.append(_whose())
        if func is not torch.ops.aten._local_scalar_dense.default or args[0].device.type != "meta":
            return func(*args, **options)
        self.files.append(_whose())
        return True if args[0].dtype is torch.bool else 1


def _whose() -> str:
    """The file that torch is called from, here or there."""
    frame: Any = sys._getframe(2)
    while "torch" in Path(frame.f_code.co_filename).parts:
        frame = frame.f_back
    return Path(frame.f_code.co_filename).name


class There:
    """An experiment on `meta`, and the models that it starts from, which are real."""

    def __init__(self, keys: Sequence[str], folder: Path) -> None:
        prepared = prepare(compose([*KEYS, *keys, f"out={folder}"]))
        lay_out(prepared)
        self.start: tuple[SideState, SideState] = Assembly(prepared.plan).initial()
        self.assembly = Assembly(replace(prepared.plan, device="meta"))

    def loop(self, client: int) -> LocalPass:
        side = self.assembly.client_side(trained=True)
        side.load(self.start[0])
        return local_pass(
            side, self.assembly.batches(client, 1, 3), client=client, round=1,
            classes=self.assembly.classes, stages=side.stages,
            stream=self.assembly.stream(client, 1), autocast=self.assembly.autocast,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has no autocast on `meta`; with fp32 nothing hangs on it."""
    original = torch.autocast
    monkeypatch.setattr(
        torch, "autocast", lambda kind, **options: nullcontext() if kind == "meta" else original(kind, **options)
    )
    monkeypatch.setitem(evaluation.BATCH, "meta", 16)


def on_device(uplink: Uplink) -> bool:
    return all(
        t.device.type == "meta" for t in (*uplink.payload.floats, *uplink.payload.integers, hard_labels(uplink.payload))
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("shared", [False, True])
def test_steps_stay_on_the_device(name: str, shared: bool, tmp_path: Path) -> None:
    assert set(asked_of_steps([f"compressor={name}"], shared, tmp_path)) == (
        {"kmeans.py"} if name in CLUSTERING else set()
    )


@pytest.mark.slow
@pytest.mark.parametrize("keys", LINKS, ids=lambda keys: "-".join(keys[::2]))
def test_a_link_waits_for_nothing(keys: list[str], tmp_path: Path) -> None:
    assert asked_of_steps(["compressor=topk", *keys], True, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("option", ["merge=within_class", "loss_weight=size", "vector=cls_token"])
def test_options_of_adc_wait_for_no_more(option: str, tmp_path: Path) -> None:
    assert set(asked_of_steps(["compressor=adc", f"compressor.{option}"], False, tmp_path)) == {"kmeans.py"}


def asked_of_steps(keys: list[str], shared: bool, folder: Path) -> list[str]:
    """Files that ask for values in two steps of two clients; in the second, nothing is brought that is waited for."""
    there = There(keys, folder / "run")
    host, loops = there.assembly.host(), [there.loop(client) for client in (0, 1)]
    host.begin(there.start[1], shared=shared)
    with ValuesAsked() as asked:
        for client in (0, 1):
            host.open(client)
        uplinks = [next(loop) for loop in loops]
        for _ in range(2):
            asked.brought.clear()
            downlinks = host.step_jointly(uplinks) if shared else [host.step(uplink) for uplink in uplinks]
            assert all(map(on_device, uplinks))
            assert all(g.device.type == "meta" for downlink in downlinks for g in downlink.payload.floats)
            uplinks = [loop.send(downlink) for loop, downlink in zip(loops, downlinks)]
    assert asked.brought == []
    return asked.files


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_larger_batch_takes_no_more_operations(name: str, tmp_path: Path) -> None:
    """So there is no loop over samples, nor over clusters, of which ADC has more then."""
    counts = []
    for size in (16, 32):
        there = There([f"compressor={name}", f"batch_size={size}"], tmp_path / str(size))
        host, loop = there.assembly.host(), there.loop(0)
        host.begin(there.start[1], shared=False)
        host.open(0)
        with ValuesAsked():  # images are augmented for several steps at once
            uplink = next(loop)
        with ValuesAsked() as seen:
            uplink = loop.send(host.step(uplink))
        assert uplink.shape.batch == size
        counts.append(seen.operations)
    assert counts[0] == counts[1] > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "adc", "topk", "randtopk", "c3sl"])
def test_stacked_steps_stay_on_the_device(name: str, tmp_path: Path) -> None:
    there = There([f"compressor={name}", "engine.stack=2"], tmp_path / "run")
    assembly = there.assembly
    stack, host = assembly.stacks()
    host.begin(there.start[1], shared=False)
    members = []
    for lane, client in enumerate((0, 1)):
        stack.load(lane, there.start[0])
        host.open(client)
        members.append(
            Member(client=client, batches=assembly.batches(client, 1, 3), stream=assembly.stream(client, 1),
                   look=lambda uplink: None, fail=lambda error: pytest.fail(str(error)), stages=stack.stages)
        )  # fmt: skip
    together = stacked_pass(stack, members, round=1, classes=assembly.classes, autocast=assembly.autocast)
    with ValuesAsked() as asked:
        uplinks = next(together)
        for _ in range(2):
            assert len(uplinks) == 2 and all(map(on_device, uplinks))
            uplinks = together.send(host.step_each(uplinks))
    assert set(asked.files) == ({"kmeans.py"} if name in CLUSTERING else set())


@pytest.mark.some
@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("at_eval", [False, True])
def test_an_evaluation_asks_for_two_numbers_at_its_end(name: str, at_eval: bool, tmp_path: Path) -> None:
    there = There([f"compressor={name}", f"compressor.at_eval={at_eval}"], tmp_path / "run")
    with ValuesAsked() as asked:
        score = Evaluator(there.assembly).score(there.start, there.assembly.dataset.test)
    assert score is not None
    assert [file for file in asked.files if file != "kmeans.py"] == ["accuracy.py", "evaluation.py"]
    assert ("kmeans.py" in asked.files) == (name in CLUSTERING and at_eval)
