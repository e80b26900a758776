"""The command line of the bench."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from experiments import command
from experiments.bench import (
    adc,
    checks,
    clients,
    endurance,
    gpu,
    latency,
    link,
    loggers,
    memory,
    messages,
    pipeline,
    scale,
    single,
    stacked,
    startup,
)
from experiments.bench.case import Result

CASES = {
    "single": single.run,
    "adc": adc.run,
    "clients": clients.run,
    "messages": messages.run,
    "latency": latency.run,
    "memory": memory.run,
    "scale": scale.run,
    "endurance": endurance.run,
    "startup": startup.run,
    "pipeline": pipeline.run,
    "gpu": gpu.run,
    "stacked": stacked.run,
    "link": link.run,
    "loggers": loggers.run,
    "checks": checks.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen cases, print a line for each ratio, and write them as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=command.listed("CASE:", {name: _about(case) for name, case in CASES.items()}),
    )  # fmt: skip
    parser.add_argument("cases", nargs="*", metavar="CASE", help="what to time, see below; all cases if none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each ratio (default 5)")
    chosen = parser.parse_args(argv)
    for case in chosen.cases:
        if case not in CASES:
            parser.error(f"CASE must be one of {', '.join(CASES)}, got {case!r}")
    if chosen.pairs < 1:
        parser.error(f"--pairs must be at least 1, got {chosen.pairs}")
    if chosen.json is not None and not chosen.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {chosen.json.absolute().parent}")
    rows = []
    for case in chosen.cases or CASES:
        for result in CASES[case](pairs=chosen.pairs):
            rows.append(result.row())
            print(result.line(), flush=True)
            if chosen.json is not None:
                chosen.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def _about(case: Callable[..., Iterator[Result]]) -> str:
    """What a case compares: the first line of its module, without its name."""
    first = (sys.modules[case.__module__].__doc__ or "").splitlines()[0]
    return first.partition(": ")[2].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
