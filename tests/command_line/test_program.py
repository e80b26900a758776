"""The program as a whole: where jobs go, how it ends, and what it shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from helpers.command_line import SMALL, Accepted, Refused, contents, one_line

import flsplit
from flsplit import cli, data, experiment
from flsplit.errors import RunFailed, UserError


def test_a_quoted_folder_is_trained_into(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SMALL, 'out="my run, (1)=a"']) == 0
    assert [path.name for path in here.iterdir()] == ["my run, (1)=a"]
    assert (here / "my run, (1)=a" / "summary.json").exists()


@pytest.mark.slow
def test_a_sweep_has_a_folder_per_job(here: Path, accepted: Accepted) -> None:
    configs = accepted("-m", "seed=1,2", "compressor=adc,topk", "out=all")
    assert [config.out for config in configs] == ["all/0", "all/1", "all/2", "all/3"]
    assert [(config.seed, config.compressor["name"]) for config in configs] == [
        (1, "adc"), (1, "topk"), (2, "adc"), (2, "topk"),
    ]  # fmt: skip
    assert [path.name for path in here.iterdir()] == ["all"]


def test_jobs_in_one_folder_are_seen_however_long_they_take_to_check(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        day = 0

        @classmethod
        def now(cls) -> datetime:
            cls.day += 1
            return datetime(2026, 1, cls.day)

    monkeypatch.setattr("hydra.core.utils.datetime", Clock)
    assert "a folder of its own" in refused("-m", "seed=1,2", "hydra.sweep.subdir=a")


@pytest.mark.slow
def test_groups_of_the_users_own(here: Path, refused: Refused, accepted: Accepted) -> None:
    (here / "own" / "compressor").mkdir(parents=True)
    (here / "own" / "compressor" / "mine.yaml").write_text("name: topk\nrate: 0.5\n")
    [config] = accepted("--config-dir", "own", "compressor=mine")
    assert config.compressor == {"name": "topk", "rate": 0.5}
    assert "fedlite, mine, randtopk" in refused("--config-dir", "own", "compressor=mne2")


def test_a_run_that_fails_is_code_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunFailed("no client is left")

    monkeypatch.setattr(experiment, "execute", fail)
    assert cli.main(["engine=inline"]) == 1
    assert one_line(capsys.readouterr().err) == "flsplit: no client is left"


@pytest.mark.some
@pytest.mark.parametrize("folder", [["out=all"], ["hydra.sweep.dir=all-${now:%f}"], []], ids=str)
def test_a_sweep_prepares_each_job_once_and_runs_what_was_prepared(
    here: Path, monkeypatch: pytest.MonkeyPatch, folder: list[str]
) -> None:
    calls: dict[str, int] = {}

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: object, **kwargs: object) -> object:
            calls[name] = calls.get(name, 0) + 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    ran: list[experiment.Prepared] = []
    for owner, name in ((experiment, "prepare"), (data, "load"), (data, "deal")):
        count(owner, name)
    monkeypatch.setattr(experiment, "execute", lambda config, *, prepared: ran.append(prepared))
    assert cli.main([*SMALL, "-m", "seed=1,2,3", *folder]) == 0
    assert calls == {"prepare": 3, "load": 3, "deal": 3}
    assert [ready.plan.config.seed for ready in ran] == [1, 2, 3]
    [jobs] = {path.parent for path in here.rglob("[0-2]")}
    assert [ready.out for ready in ran] == [jobs.relative_to(here) / number for number in "012"]


def test_what_is_true_of_all_jobs_is_told_once(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert cli.main([*SMALL, "-m", "seed=1,2", "sampling=uniform,balanced", "rounds=1", "out=all"]) == 0
    said = "sampling=balanced has nothing to choose: all clients take part in every round"
    assert capsys.readouterr().err.count(said) == 1
    notes = [json.loads((here / "all" / number / "summary.json").read_text()).get("notes") for number in "0123"]
    assert notes.count([said]) == notes.count(None) == 2


def test_what_is_shown(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    for arguments, shows in (
        (["--help"], "compressor    *adc, base"),
        (["--cfg", "job", "compressor=topk"], "rate: 0.1"),
        (["--version"], "flsplit"),
    ):
        assert cli.main(arguments) == 0
        output = capsys.readouterr()
        assert shows in output.out
        assert output.err == ""
    assert contents(here) == {}


def test_python_gets_the_same_line() -> None:
    with pytest.raises(UserError, match="unknown key client; did you mean clients"):
        flsplit.run(["client=4"])


# In a process of its own


def start(code: list[str]) -> subprocess.Popen[str]:
    root = str(Path(flsplit.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_what_hydra_finds_is_told_before_anything_slow_is_imported(here: Path) -> None:
    check = "import sys; from flsplit.cli import main; code = main(sys.argv[1:]); print('torch' in sys.modules, code)"
    process = start(["-c", check, "compressor=adcc"])
    output, error = process.communicate(timeout=600)
    assert output == "False 2\n"
    assert "did you mean adc?" in one_line(error)
    assert contents(here) == {}


@pytest.mark.slow
def test_the_program_itself(here: Path) -> None:
    process = start(["-m", "flsplit.cli", "hydra.run.dir=a", "clients=2000"])
    output, error = process.communicate(timeout=600)
    assert (process.returncode, output) == (2, "")
    assert "clients=2000" in one_line(error)
    assert contents(here) == {}


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize(
    ("sent", "engine", "word", "code"),
    [
        (signal.SIGINT, "inline", "interrupted", 130), (signal.SIGTERM, "inline", "terminated", 143),
        (signal.SIGTERM, "ray", "terminated", 143),
    ],
)  # fmt: skip
def test_whoever_ends_a_run_reads_one_line(here: Path, sent: signal.Signals, engine: str, word: str, code: int) -> None:
    process = start(["-m", "flsplit.cli", f"engine={engine}", "clients=2", "rounds=1000", "out=a"])
    deadline = time.monotonic() + 600
    while not (here / "a" / "checkpoint" / "state.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(sent)
    _, error = process.communicate(timeout=600)
    assert process.returncode == code
    said = [line for line in error.splitlines() if not line.startswith("round ")]
    assert said == [f"flsplit: {word}; resume=a goes on from here"]
