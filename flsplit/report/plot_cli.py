"""`flsplit-plot RUN... --x bits --y test_accuracy --out figure.pdf`: a figure for a paper."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from flsplit.report.cli import OneLine, code_of
from flsplit.report.plot import FORMATS, WIDTHS, save
from flsplit.report.runs import find_runs, load_run

_ALIKE = {"rounds": "round"}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; returns what `code_of` does."""
    parser = OneLine(
        prog="flsplit-plot", usage="flsplit-plot RUN... --out FILE [--x X] [--y Y] [--by KEY,KEY] [--columns N]",
        description="Draw runs as a line for each setting: the mean over seeds and its 95% interval.",
    )  # fmt: skip
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="a run's folder, or one with runs below it")
    parser.add_argument(
        "--x", default="bits", help="bits, seconds, rounds, samples, or a column of rounds.parquet [bits]"
    )
    parser.add_argument("--y", default="test_accuracy", help="the same [test_accuracy]")
    parser.add_argument("--by", default="", metavar="KEY,KEY", help="settings that make a line [all but the seed]")
    parser.add_argument("--out", required=True, type=Path, help=f"the file to write: {', '.join(FORMATS)}")
    parser.add_argument("--columns", type=int, default=1, choices=list(WIDTHS), help="its width, in columns [1]")

    def draw() -> None:
        given = parser.parse_args(argv)
        runs = [load_run(folder) for folder in find_runs(given.runs)]
        by = [key.strip() for key in given.by.split(",") if key.strip()]
        x, y = (_ALIKE.get(name, name) for name in (given.x, given.y))
        for line in save(runs, given.out, x=x, y=y, by=by, columns=given.columns):
            print(f"{line.name}: {line.seeds} seed{'s' * (line.seeds != 1)}, {len(line.points)} points")
        print(f"wrote {given.out}")

    return code_of("flsplit-plot", draw)


if __name__ == "__main__":
    sys.exit(main())
