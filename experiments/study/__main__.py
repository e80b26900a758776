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
NAMES = ("adc_multi_client", *OTHERS)


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
    parser = argparse.ArgumentParser(prog="python -m experiments.study", description=__doc__)
    add = parser.add_argument
    add("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
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


if __name__ == "__main__":
    sys.exit(main())
