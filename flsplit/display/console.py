"""What a run shows while it goes on, and the table that closes it."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from flsplit.display.stream import SafeStream
from flsplit.display.units import NOTHING, duration, human_bits, human_bytes, missing, percent

if TYPE_CHECKING:
    from flsplit.display.live import LiveBar

__all__ = ["Progress", "closing_table", "human_bits"]

_XI = "of the bits sent without compression (`base`); mean of up and down"


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands; replaced as a whole, so that another thread may read it at any time."""

    round: int
    rounds: int | None
    step: int = 0
    steps: int | None = None
    clients_done: int = 0
    clients: int | None = None
    began: float = 0.0  # the round, on the progress's clock
    loss: float | None = None
    accuracy: float | None = None
    uplink_bits: int = 0
    downlink_bits: int = 0
    ends_at: float | None = None  # on the progress's clock

    @property
    def part(self) -> float:
        """Which part of the round is done, 0..1."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0


class Progress:
    """The live display of a run: a bar on a terminal, a plain line per round elsewhere.

    Safe to call from any thread; what is written to a stream that has been closed is dropped. `NO_COLOR`,
    `TERM=dumb` or `FLSPLIT_PROGRESS=0` ask for plain lines.

        with Progress(rounds=30) as progress:
            progress.step(round=1, step=5, steps=120, loss=2.1, uplink_bits=10**6, downlink_bits=10**6)
            progress.round_done(row)  # a row of rounds.parquet

    Args:
        rounds: the last round, or about it: it grows where more are run; None if nobody knows, then no time left is
            shown.
        first_round: the round that comes first, more than 1 after `resume`.
        stream: where to write [stderr].
        quiet: show nothing at all.
        lines: whether a round is a line where there is no terminal.
        clock: seconds that only grow, for the time left.
    """

    def __init__(
        self,
        *,
        rounds: int | None,
        first_round: int = 1,
        stream: TextIO | None = None,
        quiet: bool = False,
        lines: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = SafeStream(sys.stderr if stream is None else stream)
        self._quiet = quiet
        self._lines = lines
        self._clock = clock
        self._lock = threading.Lock()
        self._state = State(round=first_round, rounds=rounds)
        self._first_round = first_round
        self._since: tuple[float, float] = (clock(), 0.0)  # when, and how many rounds were done by then
        self._stepped = False
        self._round_began = self._since[0]
        self._live: LiveBar | None = None

    def __enter__(self) -> Progress:
        self._since = (self._clock(), 0.0)
        self._round_began = self._since[0]
        if not self._quiet and self._stream.is_terminal:
            from flsplit.display.live import LiveBar  # rich takes a moment; only a terminal waits for it

            self._live = LiveBar(self._stream, lambda: self._state, self._clock)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def step(
        self,
        *,
        round: int,
        step: int,
        steps: int | None,
        loss: float,
        uplink_bits: int,
        downlink_bits: int,
        clients_done: int = 0,
        clients: int | None = None,
    ) -> None:
        """Note where the run stands; cheap enough for every step, as the display reads it when it draws.

        Args:
            round: the current round.
            step: steps done in it, over all clients.
            steps: steps that it has, over all clients; None if unknown.
            loss: the round's mean so far.
            uplink_bits: sent in the run so far, clients to server.
            downlink_bits: sent in the run so far, server to clients.
            clients_done: clients whose part in the round is over; shown in rounds that last.
            clients: that take part; None if unknown.
        """
        with self._lock:
            state = replace(
                self._state,
                round=round,
                rounds=self._at_least(round),
                step=step,
                steps=steps,
                clients_done=clients_done,
                clients=clients,
                began=self._round_began,
                loss=loss,
                uplink_bits=uplink_bits,
                downlink_bits=downlink_bits,
            )
            done = round - self._first_round + state.part
            if not self._stepped:  # what came before was start-up, not work: it says nothing about the rest
                self._stepped = True
                self._since = (self._clock(), done)
            self._state = replace(state, ends_at=self._estimate(done))

    def round_done(self, row: Mapping[str, Any]) -> None:
        """Note a finished round, and tell it in a line where there is no terminal."""
        with self._lock:
            number = int(row["round"])
            done = number - self._first_round + 1
            accuracy = row.get("test_accuracy")
            self._state = replace(
                self._state,
                round=number,
                rounds=self._at_least(number),
                step=self._state.steps or 1,
                steps=self._state.steps or 1,
                loss=row.get("train_loss"),
                accuracy=self._state.accuracy if accuracy is None else accuracy,  # NaN is shown as none
                uplink_bits=int(row["uplink_bits"]),
                downlink_bits=int(row["downlink_bits"]),
                ends_at=self._estimate(done),
            )
            now = self._clock()
            began, self._round_began = self._round_began, now
            if self._live is None and self._lines and not self._quiet:
                # A row's seconds may be the round's or the run's so far, and the first round's time here has
                # the start-up in it: the smaller of the two is the round's.
                seconds = row.get("seconds")
                took = now - began if seconds is None or missing(seconds) else min(seconds, now - began)
                self._line(_round_line(row, self._state, took, now))

    def _at_least(self, number: int) -> int | None:
        return None if self._state.rounds is None else max(self._state.rounds, number)

    def note(self, text: str) -> None:
        """Show a line: above the bar on a terminal, between the rounds elsewhere."""
        if self._quiet:
            return
        text = "".join(letter if letter.isprintable() else " " for letter in text).rstrip()
        live = self._live
        if live is not None:
            live.print(text)  # without our lock: the display has its own
        else:
            with self._lock:
                self._line(text)

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def _estimate(self, done: float) -> float | None:
        """When the run will end at the pace so far; `done` counts rounds from this process's first on."""
        if self._state.rounds is None:
            return None
        then, before = self._since
        left = self._state.rounds - self._first_round + 1 - done
        now = self._clock()
        if left <= 0:
            return now
        return now + (now - then) / (done - before) * left if done > before and now > then else None


def _round_line(row: Mapping[str, Any], state: State, took: float, now: float) -> str:
    loss, accuracy = row.get("train_loss"), row.get("test_accuracy")
    width = 1 if state.rounds is None else len(str(state.rounds))
    parts = [
        f"round {state.round:{width}d}" if state.rounds is None else f"round {state.round:>{width}d}/{state.rounds}",
        f"loss {NOTHING if loss is None or missing(loss) else format(loss, '.3f'):>5}",
        f"accuracy {percent(accuracy):>5}",
        f"up {human_bits(state.uplink_bits):>8}",
        f"down {human_bits(state.downlink_bits):>8}",
        f"{took:>5.1f} s",
    ]
    if state.ends_at is not None:
        parts.append(f"left {duration(state.ends_at - now)}")
    return "  ".join(parts)


def _closing_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the closing table says, as (name, text); what the summary does not have is left out."""
    rows: list[tuple[str, str]] = []

    def add(name: str, key: str, show: Callable[[Any], str]) -> None:
        if not missing(summary.get(key)):
            rows.append((name, show(summary[key])))

    add("status", "status", str)
    final, best = summary.get("final_test_accuracy"), summary.get("best_test_accuracy")
    told = "not evaluated" if missing(best) else f"{percent(final)} final, {percent(best)} best"
    rows.append(("test accuracy", told))
    add("over the link", "final_test_link_accuracy", lambda accuracy: f"{percent(accuracy)} final")
    own = summary.get("own_test_accuracy")
    if own is not None:
        shares = [percent(own[name]) for name in ("mean", "worst_decile", "spread")]
        rows.append(("on own parts", "{} mean over clients, {} worst tenth, {} spread".format(*shares)))
    add("bits up", "uplink_bits", lambda bits: f"{human_bits(bits)} (activations, labels)")
    add("bits down", "downlink_bits", lambda bits: f"{human_bits(bits)} (gradients)")
    add("models exchanged", "sync_bits", human_bits)
    add("packed messages", "wire_bytes", lambda count: f"{human_bytes(count)} (both ways, bytes on a wire)")
    if summary.get("retransmitted_bits"):
        add("sent again", "retransmitted_bits", lambda bits: f"{human_bits(bits)} (both ways)")
    add("simulated time", "simulated_seconds", duration)
    add("clients' energy", "joules", lambda joules: f"{joules:,.3g} J")
    add("xi", "xi", lambda xi: f"{xi:.3g} {_XI}")
    add("samples", "samples", lambda count: f"{count:,}")
    add("time", "seconds", duration)
    add("samples/s", "samples_per_second", lambda rate: f"{rate:,.0f}" if rate >= 10 else f"{rate:.3g}")
    add("folder", "out", str)
    add("more", "out", lambda folder: f"flsplit-report {shlex.quote(folder)}")
    return rows


def closing_table(summary: Mapping[str, Any], *, title: str, stream: TextIO | None = None) -> None:
    """Show what a run came to.

    Args:
        summary: the contents of summary.json; `out`, the run's folder, is shown if given.
        title: a heading, e.g. what was run.
        stream: where to write [stdout].
    """
    safe = SafeStream(sys.stdout if stream is None else stream)
    rows = _closing_rows(summary)
    if safe.is_terminal:
        from flsplit.display.live import print_table

        print_table(safe, title, rows)
        return
    width = max(len(name) for name, _ in rows)
    safe.write("\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows)]) + "\n")
    safe.flush()
