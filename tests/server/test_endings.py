"""What ends a run leaves it so that it can go on, and says so in one line."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cut import cut_after
from helpers.processes import HOSTS, ours
from helpers.program import Program
from test_resume import assert_same

import flsplit
from flsplit.cli import main
from flsplit.compose import request
from flsplit.config.schema import Config
from flsplit.errors import RunFailed, explained
from flsplit.record import atomic
from flsplit.record.run import read_run
from flsplit.server import saving
from flsplit.server.checkpoint import Checkpoints
from flsplit.transport import vectors

KEYS = [
    "clients=3", "batch_size=8", "dataset.train_limit=60", "dataset.test_limit=20", "partition=iid",
    "compressor=base",
]  # fmt: skip
INLINE = [*KEYS, "engine=inline"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def after(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, until the disk is full."""
    left = [calls]

    def once(*args: Any, **keys: Any) -> Any:
        left[0] -= 1
        return real(*args, **keys) if left[0] >= 0 else full()

    return once


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> flsplit.Run:
    """A run on a disk that has room."""
    return flsplit.run([*INLINE, "rounds=6", f"out={tmp_path_factory.mktemp('whole') / 'run'}"])


@pytest.mark.slow
@pytest.mark.parametrize("calls", range(6, 22, 3))
@pytest.mark.parametrize("where", ["server", "client"])
def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_room(
    where: str, calls: int, whole: flsplit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(saving, "SAVE_EVERY", 0.0)
    place, name = (atomic, "write") if where == "server" else (vectors, "write")
    monkeypatch.setattr(place, name, after(calls if where == "server" else calls - 4, getattr(place, name)))
    assert main([*INLINE, "rounds=6", f"out={tmp_path / 'run'}"]) == 1
    monkeypatch.undo()
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("flsplit: ")]
    assert "the disk takes no more (No space left on device at somewhere); make room" in line
    assert line.endswith(f"; resume={tmp_path / 'run'} goes on from here")
    state = Checkpoints(tmp_path / "run" / "checkpoint").load()
    resumed = flsplit.run([f"resume={tmp_path / 'run'}"])
    assert_same(whole, resumed)
    assert resumed.summary.get("notes", []) == [] or state is None


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes file systems")
def test_a_disk_of_20_megabytes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(disk)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    keys = [*INLINE, "rounds=3", "clients=12", "dataset.train_limit=120"]
    try:
        whole = flsplit.run([*keys, f"out={tmp_path / 'whole'}"])
        (disk / "ballast").write_bytes(bytes(9 << 20))
        with pytest.raises(RunFailed, match="the disk takes no more"):
            flsplit.run([*keys, f"out={disk / 'run'}"])
        (disk / "ballast").unlink()
        shutil.copytree(disk / "run", tmp_path / "run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert_same(whole, flsplit.run([f"resume={tmp_path / 'run'}"]))


def test_gpu_memory_that_is_used_up_is_one_line_that_names_settings(tmp_path: Path) -> None:
    said = explained(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), tmp_path)
    assert "batch_size" in said and "gpus_per_client" in said and "precision=bf16" in said
    assert "\n" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("typed", "taken_up"), [("1.0", True), ("2", False)])
def test_a_job_of_a_sweep_is_the_same_however_a_number_is_typed(typed: str, taken_up: bool, tmp_path: Path) -> None:
    def job(alpha: str) -> Config:
        return request([f"partition.alpha={alpha}", f"out={tmp_path}"], sweep=True).jobs[0]

    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "config.yaml").write_text(job("1").to_yaml(tmp_path / "0"))
    assert job(typed).resume == (str(tmp_path / "0") if taken_up else None)
    (tmp_path / "0" / "config.yaml").write_text("{")
    assert job(typed).resume is None


@pytest.mark.slow
def test_a_sweep_that_is_started_again_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = ["-m", *INLINE, "rounds=3", "seed=1,2,3"]
    assert main([*sweep, f"out={tmp_path / 'whole'}"]) == 0
    expected = [read_run(tmp_path / "whole" / str(job)) for job in range(3)]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for job in (1, 2):
        shutil.rmtree(tmp_path / "cut" / str(job))
    # `out` is part of what a run is, so the folder must be the one that it was begun in.
    for config in (tmp_path / "cut").rglob("config.yaml"):
        config.write_text(config.read_text().replace(str(tmp_path / "whole"), str(tmp_path / "cut")))
    with cut_after(2):
        assert main([*sweep, f"out={tmp_path / 'cut'}"]) == 130
    said = capfd.readouterr().err
    assert f"flsplit: {tmp_path / 'cut' / '0'} is done already" in said
    assert f"resume={tmp_path / 'cut' / '1'} goes on from here" in said and not (tmp_path / "cut" / "2").exists()
    assert main([*sweep, f"out={tmp_path / 'cut'}"]) == 0
    for job, run in enumerate(expected):
        assert_same(run, read_run(tmp_path / "cut" / str(job)))
    before = (tmp_path / "cut" / "1" / "summary.json").stat().st_mtime_ns
    assert main([*sweep, f"out={tmp_path / 'cut'}"]) == 0
    assert (tmp_path / "cut" / "1" / "summary.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_the_end_of_the_central_host_is_one_line_and_the_run_goes_on_later(tmp_path: Path) -> None:
    keys = [*KEYS, "strategy=splitfed_v2", "rounds=40", "eval_every=20"]  # a while, however late we look
    out = tmp_path / "run"
    program = Program([*keys, f"out={out}"], tmp_path)
    deadline = time.monotonic() + 600
    while not (out / "checkpoint" / "state.json").exists():
        assert program.code is None and time.monotonic() < deadline
        time.sleep(0.05)
    try:
        os.kill(program.pid, signal.SIGSTOP)  # it stands still until its host is found
        while not (hosts := ours(HOSTS, leader=program.pid)):
            assert time.monotonic() < deadline
        for host in hosts:
            os.kill(host, signal.SIGKILL)
    finally:
        os.kill(program.pid, signal.SIGCONT)
    assert program.wait(600) == 1
    [line] = [line for line in program.said.splitlines() if line.startswith("flsplit: ")]
    assert "the central host, a process of its own, has died" in line and "Traceback" not in program.said
    assert line.endswith(f"resume={out} goes on from here")
    whole = flsplit.run([*keys, "engine=inline", f"out={tmp_path / 'whole'}"])
    assert_same(whole, flsplit.run([f"resume={out}", "engine=inline"]))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("engine", ["ray", "flower"])
def test_what_a_run_listens_at_is_on_this_machine_alone(engine: str, tmp_path: Path) -> None:
    program = Program([*KEYS, "rounds=2", f"engine={engine}", f"out={tmp_path / 'run'}"], tmp_path, session=True)
    addresses = set[str]()
    while program.code is None:
        addresses |= listening(program.pid)
        time.sleep(0.2)
    assert program.code == 0, program.said
    assert addresses and addresses <= {"0100007F", "0" * 16 + "FFFF00000100007F", "0" * 24 + "01000000"}


def listening(session: int) -> set[str]:
    """Addresses that processes of a session listen at, as the kernel writes them."""
    sockets = set[str]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            own = int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session or below(folder, session)
            files = [str(file.readlink()) for file in (folder / "fd").iterdir()] if own else []
        except OSError:
            continue
        sockets |= {file[8:-1] for file in files if file.startswith("socket:[")}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def below(folder: Path, leader: int) -> bool:
    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    while parent > 1 and parent != leader:
        parent = int((Path("/proc") / str(parent) / "stat").read_text().rpartition(")")[2].split()[1])
    return parent == leader
