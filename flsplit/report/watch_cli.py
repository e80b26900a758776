"""`flsplit-watch RUN --out page.html --every 5`: the report of runs that are going on, written again and again."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flsplit.report.cli import OneLine, code_of
from flsplit.report.page import check_out
from flsplit.report.runs import check_folder, is_run
from flsplit.report.watch import Watch

PATIENCE = 60.0  # seconds that a folder of runs stays watched after the last of them has ended: a sweep may go on


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until all has ended; returns what `code_of` does, 0 when interrupted."""
    parser = OneLine(
        prog="flsplit-watch", usage="flsplit-watch RUN [--out FILE] [--every SECONDS]",
        description="Rewrite the report of a run, or of a folder of runs, while it goes on; from its files alone.",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, or one that contains run folders")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write [%(default)s]")
    parser.add_argument(
        "--every", type=_seconds, default=5.0, metavar="SECONDS", help="between two looks [%(default)g]"
    )

    def watch() -> None:
        given = parser.parse_args(argv)
        check_folder(given.run)
        check_out(given.out)
        _watch(Watch(given.run, given.out, given.every), given.every)

    try:
        return code_of("flsplit-watch", watch)
    except KeyboardInterrupt:
        return 0


def _watch(watched: Watch, every: float) -> None:
    quiet_since: float | None = None
    print(f"watching {watched.folder}; {watched.out} is written anew while it goes on")
    while True:
        for line in watched.look():
            print(line, flush=True)
            quiet_since = None
        if watched.ended:
            quiet_since = time.monotonic() if quiet_since is None else quiet_since
            if is_run(watched.folder) or time.monotonic() - quiet_since >= PATIENCE:
                break
        else:
            quiet_since = None
        time.sleep(every)
    watched.close()
    print(f"ended; wrote {watched.out}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
