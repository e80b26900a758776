"""Draws what clients cost over how many there are: `python -m experiments.bench.scale_plot FILE [--pairs N]`."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from experiments.bench.scale import SMALL, peak_megabytes, seconds_beyond
from flsplit.report.style import Style, figure

CLIENTS = (10, 30, 100, 300, 1000)
TAKING_PART, ROUNDS = 10, 10


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then draw."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.scale_plot", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the image, such as scale.png")
    parser.add_argument("--pairs", type=int, default=3, help="measurements of each point (default 3)")
    chosen = parser.parse_args(argv)
    if not chosen.file.absolute().parent.is_dir():
        parser.error(f"there is no folder {chosen.file.absolute().parent}")
    if chosen.pairs < 1:
        parser.error(f"--pairs must be at least 1, got {chosen.pairs}")
    with SMALL.made() as made:

        def beyond(clients: int) -> float:
            return 1e3 * seconds_beyond(made, clients=clients, taking_part=TAKING_PART, rounds=ROUNDS)

        def memory(clients: int) -> float:
            return peak_megabytes(made, "inline", clients, TAKING_PART)

        def memory_of_all(clients: int) -> float:
            return peak_megabytes(made, "inline", clients, clients)

        with figure(9, 3.6) as drawing:
            left, right = drawing.subplots(1, 2)
            _curve(left, beyond, chosen.pairs, 0, f"{TAKING_PART} take part")
            left.set(ylabel="ms per taking-part client and round\nbeyond its training")
            _curve(right, memory, chosen.pairs, 0, f"{TAKING_PART} take part")
            _curve(right, memory_of_all, chosen.pairs, 1, "all take part")
            right.set(ylabel="peak memory of the process, MB")
            for axes in (left, right):
                axes.set(xscale="log", xlabel="clients", ylim=(0, 1.2 * axes.get_ylim()[1]))
                axes.set_xticks(CLIENTS, [f"{n:,}" for n in CLIENTS], minor=False)
                axes.minorticks_off()
                axes.legend(frameon=False, fontsize=9)
            drawing.savefig(chosen.file, dpi=130)
    return 0


def _curve(axes: Axes, number: Callable[[int], float], pairs: int, index: int, label: str) -> None:
    """Medians over `CLIENTS` with their range; the first round of all, which warms up, is not counted."""
    number(CLIENTS[0])
    found = [[number(clients) for _ in range(pairs)] for clients in CLIENTS]
    middle = [statistics.median(values) for values in found]
    span = [[m - min(v) for m, v in zip(middle, found)], [max(v) - m for m, v in zip(middle, found)]]
    style = Style.of(index)
    axes.errorbar(
        CLIENTS, middle, yerr=span, color=style.colour, marker=style.marker, markersize=5, capsize=2, label=label
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
