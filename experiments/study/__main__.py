"""The command line: run what is missing, draw, print the table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments import command
from experiments.point import Point
from experiments.results import Results
from experiments.runner import run_missing
from experiments.study import adc_multi_client as study
from experiments.study import many_clients, noisy_link, quantised_adc, time_to_accuracy
from experiments.study.link import SEEDS
from flsplit.errors import UserError

HOME = Path(__file__).parent
OTHERS = {
    "many_clients": many_clients, "quantised_adc": quantised_adc, "noisy_link": noisy_link,
    "time_to_accuracy": time_to_accuracy,
}  # fmt: skip
NAMES = {
    "adc_multi_client": "accuracy at the same number of bits for 1 to 20 clients, skewed data, three strategies",
    "many_clients": "the same for pretrained models with LoRA or whole clients, 10 or 50, and cohorts",
    "quantised_adc": "accuracy over bits for base, ADC and Top-K at 32 to 2 bits a number, one client",
    "noisy_link": "what noise, fading and lost packets take from each, one client",
    "time_to_accuracy": "seconds and joules to an accuracy over networks",
}
_TOOK = """
Rows that are there took, on shared CPU cores: adc_multi_client at study-cpu 5 to 58 minutes each (34 in 8 hours),
many_clients 22 to 134 (4 in 5 hours), noisy_link 3 to 46 (21 in 5 hours). time_to_accuracy reads the paper's rows at
the reduced scale beside its own runs. Give --list to see which runs a NAME has and which are done."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for a run that failed, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    return command.ended("experiments.study", lambda: _make(arguments))


def _make(arguments: argparse.Namespace) -> None:
    made = OTHERS.get(arguments.name, study)
    points = _listed(arguments) if arguments.name in OTHERS else _grid(arguments)
    results = Results(arguments.results)
    if _run(arguments, points, results):
        rows = _there(arguments, made.gather(points, results))
        for path in made.draw(rows, results, arguments.figures, arguments.set):
            print("drew", path)
        print(made.table(rows))


def _grid(arguments: argparse.Namespace) -> list[Point]:
    return study.Grid(
        scale=arguments.scale, core=arguments.core, seeds=arguments.seeds or (study.SEED,), clients=arguments.clients,
        alphas=arguments.alphas, strategies=arguments.strategies, methods=arguments.methods,
        options=tuple(arguments.set),
    ).points()  # fmt: skip


def _listed(arguments: argparse.Namespace) -> list[Point]:
    made = OTHERS[arguments.name]
    return made.points(arguments.seeds or SEEDS, arguments.methods, tuple(arguments.set))


def _run(arguments: argparse.Namespace, points: Sequence[Point], results: Results) -> bool:
    """Run what is missing, unless rows are only to be listed or drawn.

    Returns:
        whether they are to be drawn.
    """
    if not points:
        raise UserError(f"{arguments.name} has nothing of this choice")
    if arguments.list:
        command.show(points, results)
        return False
    if not arguments.draw and not run_missing(arguments.name, points, results, command.place(arguments)):
        print(f"{arguments.name}: nothing to run, {len(points)} runs are there")
    return True


def _there(arguments: argparse.Namespace, rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        raise UserError(f"{arguments.name}: no rows yet")
    return rows


def _parser() -> argparse.ArgumentParser:
    about = {name: f"{what} ({_counted(name)})" for name, what in NAMES.items()}
    parser = argparse.ArgumentParser(
        prog="python -m experiments.study", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=command.listed("NAME:", about) + "\n" + _TOOK,
    )  # fmt: skip
    add = parser.add_argument
    add("name", choices=NAMES, metavar="NAME", help="the study, see below")
    add("--scale", choices=("study", "study-cpu"), default="study", help="224 px and all images, or two CPU cores")
    add("--core", action="store_true", help="the core of the grid, not all of it")
    add(
        "--seeds",
        type=command.seeds,
        default=(),
        metavar="A,B",
        help=f"[{study.SEED}; of the others: {SEEDS}]",
    )
    for key, known in (
        ("clients", study.CLIENTS), ("alphas", study.ALPHAS), ("strategies", tuple(study.STRATEGIES)),
        ("methods", study.NAMES),
    ):  # fmt: skip
        words = ", ".join(map(str, known))
        add(f"--{key}", type=command.some(known), default=known, metavar="A,B", help=f"of {words} [all]")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="differ from the study; part of the row")
    command.add_place(parser, runs="outputs/study", home=HOME)
    return parser


def _counted(name: str) -> str:
    """How many runs a study takes."""
    if name in OTHERS:
        return f"{len(OTHERS[name].points(SEEDS, study.NAMES, ()))} runs"
    grids = [study.Grid(scale="study-cpu", core=core).points() for core in (False, True)]
    return f"{len(grids[0])} runs, {len(grids[1])} with --core"


if __name__ == "__main__":
    sys.exit(main())
