"""The terminal's side of `console`, drawn by rich."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flsplit.display.stream import SafeStream
from flsplit.display.units import NOTHING, duration, human_bits, missing, percent

if TYPE_CHECKING:
    from flsplit.display.console import State

_PER_SECOND = 5
_BAR = (10, 30)  # columns: below, the bar is left out; above, it grows no further
_LONG = 5.0  # seconds of a round, after which clients are counted too
_GAP = 2  # columns between pieces


def _console(stream: SafeStream) -> Console:
    # `SafeStream` has all of TextIO that rich calls. Rich is told what we found out about the terminal.
    return Console(file=cast(TextIO, stream), force_terminal=True, force_jupyter=False, highlight=False)


class _Line:
    """One line of the terminal's width about a `State`.

    Where it is narrow, the bar goes, then words get shorter, then what matters least is left out.
    """

    def __init__(self, state: State, now: float) -> None:
        self._state, self._now = state, now

    def _parts(self, *, short: bool) -> list[tuple[int, Text]]:
        """Pieces with their rank; rank 0 stays longest."""
        state = self._state
        loss = NOTHING if state.loss is None or missing(state.loss) else f"{state.loss:.3f}"
        rounds = f"/{state.rounds}" if state.rounds is not None else ""
        steps = f"/{state.steps}" if state.steps else ""
        parts = [
            (0, Text(f"round {state.round}{rounds}", style="bold")),
            (4, Text(f"{'' if short else 'step '}{state.step}{steps}")),
            (1, Text(f"loss {loss}")),
            (2, Text(f"{'acc' if short else 'accuracy'} {percent(state.accuracy)}", style="green")),
            (6, Text(f"up {human_bits(state.uplink_bits)}", style="cyan")),
            (7, Text(f"down {human_bits(state.downlink_bits)}", style="cyan")),
        ]
        if state.clients is not None and self._now - state.began > _LONG:
            parts.insert(2, (5, Text(f"{state.clients_done}/{state.clients}{' cl' if short else ' clients'}")))
        if state.ends_at is not None:
            parts.append((3, Text(f"left {duration(state.ends_at - self._now)}")))
        return parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - 1  # a full line would wrap on some terminals
        parts = self._parts(short=False)
        room = width - _width(parts) - _GAP  # what a bar would get
        if room < 0:
            parts = self._parts(short=True)
        while len(parts) > 1 and _width(parts) > width:
            parts.remove(max(parts, key=lambda part: part[0]))
        cells: list[Text | ProgressBar] = [text for _, text in parts]
        if room >= _BAR[0]:
            state = self._state
            done = state.part if state.rounds is None else (state.round - 1 + state.part) / state.rounds
            bar = ProgressBar(
                total=1.0,
                completed=done,
                width=min(_BAR[1], room),
                complete_style="cyan",
                finished_style="green",
            )
            cells.insert(1, bar)
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        for _ in cells:
            grid.add_column(no_wrap=True)
        grid.add_row(*cells)
        yield grid


def _width(parts: Sequence[tuple[int, Text]]) -> int:
    return sum(text.cell_len for _, text in parts) + _GAP * (len(parts) - 1)


class LiveBar:
    """A bar that a thread redraws a few times a second from the newest state."""

    def __init__(self, stream: SafeStream, state: Callable[[], State], clock: Callable[[], float]) -> None:
        self._console = _console(stream)
        self._live = Live(
            console=self._console,
            refresh_per_second=_PER_SECOND,
            get_renderable=lambda: _Line(state(), clock()),
        )

    def start(self) -> None:
        """Show the bar."""
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Leave the bar as it is and free the terminal."""
        self._live.stop()

    def print(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(Text(text))


def print_table(stream: SafeStream, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """A two-column table under a heading."""
    table = Table(title=Text(title, style="bold"), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    _console(stream).print(table)
