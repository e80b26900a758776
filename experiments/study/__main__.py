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
from experiments.study import adc_multi_client, many_clients, noisy_link, quantised_adc, time_to_accuracy
from experiments.study.choice import KEYS, chosen
from flsplit.errors import UserError

HOME = Path(__file__).parent
GRID = "adc_multi_client"  # the one with --scale and --core
STUDIES = {
    GRID: adc_multi_client, "many_clients": many_clients, "quantised_adc": quantised_adc, "noisy_link": noisy_link,
    "time_to_accuracy": time_to_accuracy,
}  # fmt: skip
NAMES = {
    GRID: "accuracy at the same number of bits for 1 to 20 clients, skewed data, three strategies",
    "many_clients": "the same for pretrained models with LoRA or whole clients, 10 or 50, and cohorts",
    "quantised_adc": "accuracy over bits for base, ADC and Top-K at 32 to 2 bits a number, one client",
    "noisy_link": "what noise, fading and lost packets take from each, one client",
    "time_to_accuracy": "seconds and joules to an accuracy over networks",
}
_TOOK = """
Rows that are there took, on shared CPU cores: adc_multi_client at study-cpu 5 to 58 minutes each (34 in 8 hours),
many_clients 22 to 134 (9 in 9 hours), noisy_link 3 to 46 (21 in 5 hours), time_to_accuracy 4 to 9 (20 in 2 hours),
beside which it reads the paper's rows at the reduced scale. Give --list to see which runs a NAME has and which are
done."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for a run that failed, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    return command.ended("experiments.study", lambda: _make(arguments))


def _make(arguments: argparse.Namespace) -> None:
    made = STUDIES[arguments.name]
    wanted = {key: getattr(arguments, key) for key in KEYS}
    points = chosen(arguments.name, _points(arguments), wanted)
    results = Results(arguments.results)
    if _run(arguments, points, results):
        rows = _there(arguments, made.gather(points, results))
        for path in made.draw(rows, results, arguments.figures, arguments.set):
            print("drew", path)
        print(made.table(rows))


def _points(arguments: argparse.Namespace) -> list[Point]:
    """All runs of a study."""
    name, options = arguments.name, tuple(arguments.set)
    seeds = arguments.seeds or STUDIES[name].SEEDS
    if name == GRID:
        return adc_multi_client.points(seeds, options, scale=arguments.scale or "study", core=arguments.core)
    command.refuse(name, arguments, "scale", "core")
    return STUDIES[name].points(seeds, options)


def _run(arguments: argparse.Namespace, points: Sequence[Point], results: Results) -> bool:
    """Run what is missing, unless rows are only to be listed or drawn.

    Returns:
        whether they are to be drawn.
    """
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
    add("--scale", choices=("study", "study-cpu"), help=f"{GRID}: 224 px and all images [study], or two CPU cores")
    add("--core", action="store_true", help=f"{GRID}: the core of the grid, not all of it")
    add("--seeds", type=command.seeds, default=(), metavar="A,B", help="[those of the study]")
    for key in KEYS:
        add(f"--{key}", metavar="A,B", help="of those in the study [all]")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="differ from the study; part of the row")
    command.add_place(parser, runs="outputs/study", home=HOME)
    return parser


def _counted(name: str) -> str:
    """How many runs a study takes."""
    runs = f"{len(STUDIES[name].points())} runs"
    return f"{runs}, {len(adc_multi_client.points(core=True))} with --core" if name == GRID else runs


if __name__ == "__main__":
    sys.exit(main())
