"""The command line: run what is missing, draw, compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.paper import figures, tables
from experiments.paper.protocol import DATASETS, METHODS, MODELS, RULES, SCALES, SEEDS, Choice, points
from experiments.paper.reported import HOME
from experiments.results import Results
from experiments.runner import Place, run_missing
from flsplit.errors import RunFailed, UserError

NAMES = ("fig1", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "table1", "table2", "compare")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for a run that failed, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        _make(arguments)
    except UserError as error:
        text = str(error).replace("dataset.path=", "--data ").replace("model.pretrained=FILE", "--weights FILE")
        print("experiments.paper:", text, file=sys.stderr)
        return 2
    except RunFailed as error:
        print("experiments.paper:", error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiments.paper: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _make(arguments: argparse.Namespace) -> None:
    results = Results(arguments.results)
    name = arguments.name
    if name == "table1":
        print(tables.table1(arguments.scale))
        return
    if name == "compare":
        print(tables.compare(results.table(), arguments.scale))
        return
    choice = Choice(
        scale=arguments.scale, datasets=arguments.dataset, models=arguments.model, methods=arguments.methods,
        ratios=arguments.ratios, rules=arguments.rules, options=tuple(arguments.set),
        seeds=arguments.seeds or (SEEDS if arguments.scale == "full" else SEEDS[:1]),
    )  # fmt: skip
    wanted = points(name, choice)
    if not wanted:
        raise UserError(f"{name} has nothing of this choice")
    if arguments.list:
        for point in wanted:
            print(point.slug, "" if results.row(point) is None else "(done)")
        return
    place = Place(
        runs=arguments.runs, data=arguments.data, weights=arguments.weights, overrides=tuple(arguments.machine)
    )
    if not run_missing(name, wanted, results, place):
        print(f"{name}: nothing to run, {len(wanted)} runs are there")
    if name == "table2":
        print(tables.table2(results, wanted))
        return
    for path in figures.draw(name, wanted, results, arguments.figures, place):
        print("drew", path)
    print(tables.compare(results.table(), arguments.scale, wanted))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.paper", description=__doc__)
    add = parser.add_argument
    add("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    add("--scale", choices=SCALES, default="full", help="the paper's protocol, or one for two CPU cores [full]")
    add("--methods", type=_some(METHODS), default=(), metavar="A,B", help=f"of {', '.join(METHODS)} [all]")
    add("--ratios", type=_ratios, default=(), metavar="X,Y", help="xi, k/D, or nearly 1/R [the figure's]")
    add("--rules", type=_some(RULES), default=("sqrt",), metavar="A,B", help=f"ADC's: {', '.join(RULES)} [sqrt]")
    add("--seeds", type=_seeds, default=(), metavar="A,B", help=f"[full: {SEEDS}, reduced: {SEEDS[0]}]")
    add("--dataset", type=_some(DATASETS), default=(), metavar="A,B", help="[the figure's]")
    add("--model", type=_some(MODELS), default=(), metavar="A,B", help="[the figure's]")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="differ from the protocol; part of the row")
    add("--machine", action="append", default=[], metavar="KEY=VALUE", help="such as engine.cpus_per_client=2")
    add("--data", metavar="PATH", help="local copy of the dataset [the Hub]")
    add("--weights", metavar="FILE", help="pretrained weights [the Hub]")
    add("--runs", type=Path, default=Path("outputs/paper"), metavar="FOLDER", help="[outputs/paper]")
    add("--results", type=Path, default=HOME, metavar="FOLDER", help="with results.csv and curves/ [beside the code]")
    add("--figures", type=Path, default=HOME / "figures", metavar="FOLDER", help="[beside the code]")
    add("--list", action="store_true", help="show the runs and which are done, do nothing")
    return parser


def _some(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, got {word!r}")
        return chosen

    return read


def _ratios(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers, got {text!r}") from None
    if not all(0 < ratio <= 1 for ratio in found):
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return found


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers, got {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
