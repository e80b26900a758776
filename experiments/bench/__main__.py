"""The command line of the bench."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

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
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none is given")
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


if __name__ == "__main__":
    sys.exit(main())
