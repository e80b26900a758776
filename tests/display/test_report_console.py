"""Progress and the closing table."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import flsplit.report
from flsplit.display.building import building
from flsplit.display.console import Progress, closing_table, human_bits
from flsplit.display.units import duration

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def a_capable_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "140")


def row(round: int, **changes: Any) -> dict[str, Any]:
    return {
        "round": round,
        "samples": 1400 * round,
        "train_loss": 1.2341,
        "test_loss": 1.1,
        "test_accuracy": 0.5671,
        "uplink_bits": 12_345_678 * round,
        "downlink_bits": 11_911_111 * round,
        "sync_bits": 0,
        "seconds": 2.14,
    } | changes


def step(progress: Progress, round: int, at: int, of: int | None) -> None:
    progress.step(round=round, step=at, steps=of, loss=2.0, uplink_bits=7, downlink_bits=8)


def test_plain_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(rounds=12, stream=stream, clock=clock) as progress:
        clock.now += 10
        progress.round_done(row(1))
        progress.note("client 3 failed in round 2:\x1b[31m out of\nmemory")
        clock.now += 10
        progress.round_done(row(2, test_accuracy=None, train_loss=float("nan")))
        clock.now += 980
        progress.round_done(row(10, test_accuracy=0.0712, uplink_bits=999, seconds=123.4))
        clock.now += 200
        progress.round_done(row(12))
    assert stream.getvalue().splitlines() == [
        "round  1/12  loss 1.234  accuracy 56.7%  up  12.3 Mb  down  11.9 Mb    2.1 s  left 1:50",
        "client 3 failed in round 2: [31m out of memory",
        "round  2/12  loss     -  accuracy     -  up  24.7 Mb  down  23.8 Mb    2.1 s  left 1:40",
        "round 10/12  loss 1.234  accuracy  7.1%  up    999 b  down 119.1 Mb  123.4 s  left 3:20",
        "round 12/12  loss 1.234  accuracy 56.7%  up 148.1 Mb  down 142.9 Mb    2.1 s  left 0:00",
    ]


@pytest.mark.parametrize("cumulative", [False, True])
def test_a_line_tells_the_seconds_of_its_round(cumulative: bool) -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(rounds=None, stream=stream, clock=clock) as progress:
        clock.now += 30 + 4  # start-up and the first round
        progress.round_done(row(1, seconds=4.0))
        clock.now += 6
        progress.round_done(row(2, seconds=10.0 if cumulative else 6.0))
        clock.now += 5
        progress.round_done(row(3, seconds=None))
    assert [line.split()[-2] for line in stream.getvalue().splitlines()] == ["4.0", "6.0", "5.0"]


def test_steps_print_nothing_and_start_up_does_not_count_as_work() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(rounds=3, stream=stream, clock=clock) as progress:
        clock.now += 500  # start-up
        step(progress, 1, 1, 10)
        clock.now += 9
        step(progress, 1, 10, 10)
        assert stream.getvalue() == ""
        progress.round_done(row(1))
    assert stream.getvalue().rstrip().endswith("left 0:20")  # 0.9 rounds took 9 s, two are left


def test_a_resumed_run_counts_only_its_own_rounds() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(rounds=30, first_round=21, stream=stream, clock=clock) as progress:
        clock.now += 60
        progress.round_done(row(21))
    assert stream.getvalue().startswith("round 21/30 ")
    assert stream.getvalue().rstrip().endswith("left 9:00")


def test_rounds_are_never_more_than_there_are() -> None:
    stream = io.StringIO()
    with Progress(rounds=2, stream=stream) as progress:
        for number in (1, 2, 3):
            step(progress, number, 1, 1)
            progress.round_done(row(number))
    assert [line.split("  ")[0] for line in stream.getvalue().splitlines()] == ["round 1/2", "round 2/2", "round 3/3"]


def test_without_a_last_round_there_is_no_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(rounds=None, stream=stream, clock=clock) as progress:
        clock.now += 5
        step(progress, 1, 1, None)
        progress.round_done(row(1))
    assert stream.getvalue() == ("round 1  loss 1.234  accuracy 56.7%  up  12.3 Mb  down  11.9 Mb    2.1 s\n")


@pytest.mark.parametrize("variable,value", [("NO_COLOR", "1"), ("TERM", "dumb"), ("FLSPLIT_PROGRESS", "0")])
def test_plain_on_a_terminal_that_asks_for_it(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    stream = Terminal()
    with Progress(rounds=2, stream=stream) as progress:
        step(progress, 1, 1, 4)
        progress.round_done(row(1))
    assert stream.getvalue().startswith("round 1/2  loss 1.234")
    assert not _CONTROL.search(stream.getvalue())


def test_quiet_writes_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        with Progress(rounds=2, stream=stream, quiet=True) as progress:
            step(progress, 1, 1, 4)
            progress.note("something")
            progress.round_done(row(1))
        assert stream.getvalue() == ""


def test_stderr_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(rounds=1) as progress:
        progress.round_done(row(1))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("round 1/1 ")


def shown(stream: io.StringIO) -> str:
    """What a terminal got, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_terminal_shows_bar_numbers_and_notes() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(rounds=30, stream=stream, clock=clock) as progress:
        progress.round_done(row(1))
        step(progress, 2, 0, 120)
        clock.now += 10
        progress.note("client 3 failed [red]badly[/red]")
        progress.step(round=2, step=30, steps=120, loss=1.5, uplink_bits=23_400_000, downlink_bits=9_000_000_000)
    last = shown(stream).splitlines()[-1]
    for told in ("round 2/30", "step 30/120", "loss 1.500", "accuracy 56.7%", "up 23.4 Mb", "down 9.0 Gb"):
        assert told in last
    assert "left 19:10" in last  # a quarter of a round took 10 s, 28.75 rounds are left
    assert "━" in last
    assert "client 3 failed [red]badly[/red]\n" in shown(stream)


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 200])
def test_terminal_line_fits_any_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream, clock = Terminal(), Clock()
    with Progress(rounds=30, stream=stream, clock=clock) as progress:
        step(progress, 3, 0, 120)
        clock.now += 10
        progress.round_done(row(3))
    lines = [line.rstrip() for line in shown(stream).replace("\r", "\n").splitlines() if line.strip()]
    assert all(len(line) < columns for line in lines)
    last = lines[-1]
    assert "round 3/30" in last
    assert ("left 4:30" in last) == (columns >= 60)
    assert ("down 35.7 Mb" in last) == (columns >= 80)
    assert ("━" in last) == (columns >= 200)


def test_many_threads_at_once() -> None:
    for stream in (io.StringIO(), Terminal()):
        with Progress(rounds=40, stream=stream) as progress:

            def work(first: int, progress: Progress = progress) -> None:
                for number in range(first, first + 10):
                    for at in range(50):
                        step(progress, number, at, 50)
                    progress.note(f"note {number:02d}")
                    progress.round_done(row(number))

            threads = [threading.Thread(target=work, args=(first,)) for first in (1, 11, 21, 31)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=600)
            assert not any(thread.is_alive() for thread in threads)
        notes = re.findall(r"^note (\d\d)\s*$", shown(stream).replace("\r", "\n"), re.MULTILINE)
        assert sorted(notes) == [f"{number:02d}" for number in range(1, 41)]


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_closed_stream_is_no_reason_to_stop(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    stream = kind()
    with Progress(rounds=2, stream=stream) as progress:
        progress.round_done(row(1))
        stream.close()
        step(progress, 2, 1, 4)
        progress.note("nobody reads this")
        progress.round_done(row(2))
    closing_table({"samples": 3}, title="t", stream=stream)
    assert raised == []


def test_a_broken_pipe_and_a_poor_encoding() -> None:
    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with Progress(rounds=2, stream=Pipe()) as progress:
        progress.note("gone")
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with Progress(rounds=2, stream=ascii_only) as progress:
        progress.note("caf\u00e9")
    assert ascii_only.buffer.getvalue() == b"caf?\n"  # type: ignore[attr-defined]


SUMMARY: dict[str, Any] = {
    "status": "completed",
    "final_test_accuracy": 0.5671,
    "best_test_accuracy": 0.6,
    "final_test_link_accuracy": 0.551,
    "uplink_bits": 12_345_678,
    "downlink_bits": 2_000_000_000,
    "wire_bytes": 250_000_000,
    "sync_bits": 64_000,
    "xi": 0.10234,
    "samples": 50_000,
    "seconds": 3723.4,
    "samples_per_second": 1163.2,
    "out": "outputs/[bold]first",
}


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_closing_table(kind: type[io.StringIO]) -> None:
    stream = kind()
    closing_table(SUMMARY, title="adc [red] digits", stream=stream)
    lines = [re.sub(r" {2,}", "  ", line.strip()) for line in shown(stream).splitlines()]
    told = dict(re.split(r" {2,}", line.replace("exchanged ", "exchanged  "), maxsplit=1) for line in lines[1:])
    assert lines[0] == "adc [red] digits"
    assert told["test accuracy"] == "56.7% final, 60.0% best"
    assert told["over the link"] == "55.1% final"
    assert told["bits up"].startswith("12.3 Mb ")
    assert told["bits down"].startswith("2.0 Gb ")
    assert told["models exchanged"].strip() == "64.0 kb"
    assert told["packed messages"].startswith("250.0 MB ")
    assert told["xi"].startswith("0.102 of the bits sent without compression (`base`)")
    assert (told["samples"], told["time"], told["samples/s"]) == ("50,000", "1:02:03", "1,163")
    assert told["folder"] == "outputs/[bold]first"
    assert told["more"] == "flsplit-report 'outputs/[bold]first'"


def test_a_model_that_has_diverged_is_shown_with_no_accuracy_of_before(capsys: pytest.CaptureFixture[str]) -> None:
    closing_table(SUMMARY | {"final_test_accuracy": None}, title="adc")
    assert "- final, 60.0% best" in capsys.readouterr().out
    stream = Terminal()
    with Progress(rounds=3, stream=stream, clock=Clock()) as progress:
        progress.round_done(row(1))
        progress.round_done(row(2, test_accuracy=float("nan")))
    assert "accuracy -" in shown(stream).splitlines()[-1]


def test_closing_table_without_activations_or_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    summary = SUMMARY | {"xi": None, "final_test_accuracy": None, "best_test_accuracy": None}
    del summary["out"]
    closing_table(summary, title="fedavg")
    out = capsys.readouterr().out
    assert "not evaluated" in out
    assert not re.search(r"^ *(xi|folder) ", out, re.MULTILINE)
    assert not _CONTROL.search(out)


@pytest.mark.parametrize(
    "bits,told",
    [
        (0, "0 b"),
        (999, "999 b"),
        (1000, "1.0 kb"),
        (999_949, "999.9 kb"),
        (999_960, "1.0 Mb"),
        (12_345_678, "12.3 Mb"),
        (10**9, "1.0 Gb"),
        (25 * 10**11, "2.5 Tb"),
    ],
)
def test_human_bits(bits: int, told: str) -> None:
    assert human_bits(bits) == told


def test_duration() -> None:
    assert [duration(seconds) for seconds in (-3, 43.2, 59.7, 3600)] == ["0:00", "0:43", "1:00", "1:00:00"]


def test_a_run_without_terminal_does_not_wait_for_rich_or_matplotlib() -> None:
    code = (
        "import sys, flsplit.display.console as c; c.Progress(rounds=1, stream=sys.stdout).note('x'); "
        "print([name for name in ('rich', 'matplotlib', 'pandas') if name in sys.modules])"
    )
    root = Path(flsplit.report.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "x\n[]\n"


def test_clients_are_counted_in_rounds_that_last() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(rounds=3, stream=stream, clock=clock) as progress:
        for seconds in (4, 2):
            assert "clients" not in shown(stream)
            clock.now += seconds
            progress.step(
                round=1, step=3, steps=9, loss=1, uplink_bits=1, downlink_bits=1, clients_done=2, clients=10
            )  # fmt: skip
    assert "step 3/9  2/10 clients  loss 1.000" in shown(stream).splitlines()[-1]


@pytest.mark.parametrize("kind,seconds,told", [(Terminal, 2, True), (Terminal, 0.1, False), (io.StringIO, 2, False)])
def test_tables_that_take_long_to_build_have_a_bar(kind: type[io.StringIO], seconds: float, told: bool) -> None:
    stream, clock = kind(), Clock()
    with building(stream=stream, clock=clock) as tell:
        tell("train", 1, 40)
        clock.now += seconds
        tell("train", 20, 40)
    assert ("building the table of train images" in shown(stream)) == told
    assert told or stream.getvalue() == ""
