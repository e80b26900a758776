"""`flsplit-report RUN... --out report.html`: one page about one or many runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from flsplit.errors import UserError, explained
from flsplit.report.page import write_report
from flsplit.report.runs import ReportError

__all__ = ["main", "write_report"]


class OneLine(argparse.ArgumentParser):
    """Tells a mistake in one line, with `usage` at its end."""

    def error(self, message: str) -> NoReturn:
        """See `ArgumentParser`.

        Raises:
            ReportError: always.
        """
        raise ReportError(f"{message}; usage: {self.usage}")


def code_of(program: str, work: Callable[[], None]) -> int:
    """Do what a command is for.

    Returns:
        0, 1 for a fault of the program, 2 for a mistake of the user's; what has stopped it is told in one line.
    """
    try:
        work()
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"{program}: {explained(error, None)}", file=sys.stderr)
        return 1
    return 0


def main(argv: list[str] | None = None) -> int:
    """Write the page; returns what `code_of` does."""
    parser = OneLine(
        prog="flsplit-report", usage="flsplit-report RUN... --out report.html",
        description="Write one self-contained HTML page about runs.",
    )  # fmt: skip
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", type=Path, help="a run's folder, or one that contains run folders"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write [%(default)s]")

    def write() -> None:
        arguments = parser.parse_args(argv)
        write_report(arguments.runs, arguments.out)
        print(f"wrote {arguments.out}")

    return code_of("flsplit-report", write)


if __name__ == "__main__":
    sys.exit(main())
