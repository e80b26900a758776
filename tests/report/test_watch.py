"""`flsplit-watch`: lines and pages while a run goes on, whatever state its files are in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from make_runs import config, make_run, rounds_table, summary_of

from flsplit.report import watch, watch_cli
from flsplit.report.watch import Watch
from flsplit.report.watch_cli import main


def going_on(folder: Path, rounds: int, seed: int = 0) -> Path:
    """A run in which a process still is."""
    run = make_run(folder, config(seed=seed), rounds=rounds_table(rounds), summary=False)
    (run / ".lock").write_text("process 1 on another machine")
    return run


@pytest.fixture
def plain_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without charts, which take a moment."""
    monkeypatch.setattr(watch, "render", lambda runs, refresh=None: f"{len(runs)} runs")


def go_on(run: Path, rounds: int) -> None:
    rounds_table(rounds).to_parquet(run / "rounds.parquet")


def end(run: Path, rounds: int) -> None:
    (run / "summary.json").write_text(json.dumps(summary_of(rounds_table(rounds))))
    (run / ".lock").unlink()


@pytest.mark.slow
def test_a_line_for_each_round_and_the_end(tmp_path: Path) -> None:
    run, page = going_on(tmp_path / "run", 2), tmp_path / "page.html"
    watched = Watch(run, page, 7)
    lines = watched.look()
    assert [line.split("  loss")[0] for line in lines] == ["round  1/12", "round  2/12"]
    assert '<meta http-equiv="refresh" content="7">' in page.read_text()
    assert "unfinished" in page.read_text()
    before = page.stat().st_mtime_ns
    assert watched.look() == []
    assert page.stat().st_mtime_ns == before
    go_on(run, 3)
    assert [line.split("  loss")[0] for line in watched.look()] == ["round  3/12"]
    assert not watched.ended
    end(run, 3)
    assert watched.look() == ["completed"]
    assert watched.ended
    watched.close()
    assert "http-equiv" not in page.read_text()


@pytest.mark.usefixtures("plain_pages")
@pytest.mark.parametrize("name", ["rounds.parquet", "clients.parquet", "config.yaml"])
def test_half_a_file_is_looked_at_again(tmp_path: Path, name: str) -> None:
    run = going_on(tmp_path / "run", 2)
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[:-9] if name != "config.yaml" else b"a: [1\nb: :")
    watched = Watch(run, tmp_path / "page.html", 1)
    assert watched.look() == []
    assert not (tmp_path / "page.html").exists()
    (run / name).write_bytes(whole)
    assert len(watched.look()) == 2


@pytest.mark.usefixtures("plain_pages")
def test_runs_of_a_sweep_come_and_go(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    watched = Watch(sweep, tmp_path / "page.html", 1)
    assert watched.look() == []
    first = going_on(sweep / "0", 1)
    assert watched.look()[0].startswith("0: round  1/12")
    end(first, 1)
    second = going_on(sweep / "1", 1, seed=1)
    assert [line[:10].strip() for line in watched.look()] == ["0: complet", "1: round"]
    assert not watched.ended
    end(second, 1)
    watched.look()
    assert watched.ended


@pytest.mark.usefixtures("plain_pages")
def test_a_run_that_was_cut_off_is_over(tmp_path: Path) -> None:
    watched = Watch(make_run(tmp_path / "run", summary=False), tmp_path / "page.html", 1)
    assert watched.look()[-1] == "cut off: no process is in it any more"
    assert watched.ended


@pytest.mark.usefixtures("plain_pages")
def test_a_run_that_was_killed_on_this_machine_is_over(tmp_path: Path) -> None:
    """It has left its lock behind, which names a process that has gone; elsewhere there may be one of that number."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = socket.gethostname()
    for said, over in (
        (f"process {gone.pid} on {here}", True), (f"process {os.getpid()} on {here}", False),
        (f"process {gone.pid} on another-{here}", False), ("", False),
    ):  # fmt: skip
        run = going_on(tmp_path / str(len(list(tmp_path.iterdir()))), 1)
        (run / ".lock").write_text(said)
        watched = Watch(run, tmp_path / "page.html", 1)
        assert (watched.look()[-1] == "cut off: no process is in it any more") == watched.ended == over


@pytest.mark.usefixtures("plain_pages")
def test_the_command_ends_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, page = going_on(tmp_path / "run", 1), tmp_path / "page.html"
    threading.Timer(0.3, lambda: (go_on(run, 2), end(run, 2))).start()  # type: ignore[func-returns-value]
    assert main([str(run), "--out", str(page), "--every", "0.05"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line[:11] for line in out[1:3]] == ["round  1/12", "round  2/12"]
    assert out[3:] == ["completed", f"ended; wrote {page}"]


@pytest.mark.usefixtures("plain_pages")
def test_interrupted_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch_cli.time, "sleep", interrupt)
    assert main([str(going_on(tmp_path / "run", 1)), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().err == ""


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = going_on(tmp_path / "run", 1)
    for arguments, told in (
        ([tmp_path / "absent"], "no such folder"),
        ([run, "--every", "0"], "must be a number of seconds above 0, got 0"),
        ([run, "--every", "soon"], "got soon"),
        ([run, "--out", run / "config.yaml"], "is no HTML page"),
        ([], "usage: flsplit-watch RUN"),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and told in err
