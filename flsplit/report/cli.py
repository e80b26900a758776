"""`flsplit-report RUN... --out report.html`: one page about one or many runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from flsplit.errors import explained
from flsplit.report.page import write_report
from flsplit.report.runs import ReportError

__all__ = ["main", "write_report"]


class OneLine(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise ReportError(f"{message}; usage: {self.prog} RUN... --out report.html")


def main(argv: list[str] | None = None) -> int:
    """Write the page.

    Returns:
        0, 1 for a fault of the program, 2 for a mistake of the user's.
    """
    parser = OneLine(prog="flsplit-report", description="Write one self-contained HTML page about runs.")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", type=Path, help="a run's folder, or one that contains run folders"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write [%(default)s]")
    try:
        arguments = parser.parse_args(argv)
        write_report(arguments.runs, arguments.out)
    except ReportError as error:
        print(f"flsplit-report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"flsplit-report: {explained(error, None)}", file=sys.stderr)
        return 1
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
