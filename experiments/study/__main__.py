"""The command line: run what is missing, draw, print the table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.results import Results
from experiments.runner import Place, run_missing
from experiments.study import adc_multi_client as study
from flsplit.errors import RunFailed, UserError

HOME = Path(__file__).parent
NAMES = ("adc_multi_client",)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for a run that failed, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        _make(arguments)
    except UserError as error:
        text = str(error).replace("dataset.path=", "--data ").replace("model.pretrained=FILE", "--weights FILE")
        print("experiments.study:", text, file=sys.stderr)
        return 2
    except RunFailed as error:
        print("experiments.study:", error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiments.study: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _make(arguments: argparse.Namespace) -> None:
    results = Results(arguments.results)
    points = study.Grid(scale=arguments.scale, core=arguments.core, seeds=arguments.seeds).points()
    if arguments.list:
        for point in points:
            print(point.slug, "" if results.row(point) is None else "(done)")
        return
    place = Place(
        runs=arguments.runs, data=arguments.data, weights=arguments.weights, overrides=tuple(arguments.machine)
    )
    if not arguments.draw and not run_missing(arguments.name, points, results, place):
        print(f"{arguments.name}: nothing to run, {len(points)} runs are there")
    rows = study.gather(points, results)
    if rows.empty:
        raise UserError(f"{arguments.name}: no rows yet")
    for path in study.draw(rows, results, arguments.figures):
        print("drew", path)
    print(study.table(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.study", description=__doc__)
    add = parser.add_argument
    add("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    add("--scale", choices=("study", "study-cpu"), default="study", help="224 px and all images, or two CPU cores")
    add("--core", action="store_true", help="the core of the grid, not all of it")
    add("--seeds", type=_seeds, default=(study.SEED,), metavar="A,B", help=f"[{study.SEED}]")
    add("--machine", action="append", default=[], metavar="KEY=VALUE", help="such as engine=ray")
    add("--data", metavar="PATH", help="local copy of CIFAR-100 [the Hub]")
    add("--weights", metavar="FILE", help="pretrained weights [the Hub]")
    add("--runs", type=Path, default=Path("outputs/study"), metavar="FOLDER", help="[outputs/study]")
    add("--results", type=Path, default=HOME, metavar="FOLDER", help="with results.csv and curves/ [beside the code]")
    add("--figures", type=Path, default=HOME / "figures", metavar="FOLDER", help="[beside the code]")
    add("--list", action="store_true", help="show the runs and which are done, do nothing")
    add("--draw", action="store_true", help="draw the rows that there are, run nothing")
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers, got {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
