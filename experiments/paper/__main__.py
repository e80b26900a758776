"""The command line: run what is missing, draw, compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from experiments import command
from experiments.paper import figures, rules, tables
from experiments.paper.compare import compare
from experiments.paper.protocol import DATASETS, METHODS, MODELS, OTHERS, RULES, SCALES, SEEDS, Choice, points
from experiments.paper.reported import HOME
from experiments.results import Results
from experiments.runner import run_missing
from flsplit.errors import UserError

NAMES = ("rows", "fig1", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "table1", "table2", "rules", "compare")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for a run that failed, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    return command.ended("experiments.paper", lambda: _make(arguments))


def _make(arguments: argparse.Namespace) -> None:
    results = Results(arguments.results)
    name = arguments.name
    scale = arguments.scale or SCALES[0]
    if name == "table1":
        print(tables.table1(scale))
        return
    if name == "compare":
        rows = results.table()
        there = [s for s in SCALES if (rows.scale == s).any()] or SCALES[:1]
        print("\n\n".join(compare(rows, s) for s in ([arguments.scale] if arguments.scale else there)))
        return
    if name == "rules":
        _rules(arguments, results)
        return
    choice = Choice(
        scale=scale, datasets=arguments.dataset, models=arguments.model, methods=arguments.methods,
        ratios=arguments.ratios, rules=arguments.rules, options=tuple(arguments.set),
        seeds=arguments.seeds or (SEEDS if scale == "full" else SEEDS[:1]),
    )  # fmt: skip
    wanted = points(name, choice)
    if not wanted:
        raise UserError(f"{name} has nothing of this choice")
    if arguments.list:
        command.show(wanted, results)
        return
    place = command.place(arguments)
    if arguments.draw:
        if all(results.row(point) is None for point in wanted):
            raise UserError(f"{name}: no rows yet")
    elif not run_missing(name, wanted, results, place):
        print(f"{name}: nothing to run, {len(wanted)} runs are there")
    if name == "table2":
        print(tables.table2(results, wanted))
        return
    for path in figures.draw(name, wanted, results, arguments.figures, place):
        print("drew", path)
    print(compare(results.table(), scale, wanted))


def _rules(arguments: argparse.Namespace, results: Results) -> None:
    seeds, ratios = arguments.seeds or SEEDS[:1], arguments.ratios or (0.2, 0.1)
    wanted = [point for seed in seeds for point in rules.points(arguments.scale or "reduced", ratios, RULES, seed)]
    if arguments.list:
        command.show(wanted, results)
        return
    if not arguments.draw and not run_missing("rules", wanted, results, command.place(arguments)):
        print(f"rules: nothing to run, {len(wanted)} runs are there")
    rows = rules.gather(wanted, results)
    if rows.empty:
        raise UserError("rules: no rows yet")
    print(rules.table(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.paper", description=__doc__)
    add = parser.add_argument
    add("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    add(
        "--scale",
        choices=SCALES,
        help="the paper's protocol, or 96 px for two CPU cores [full; compare: all there are]",
    )
    add(
        "--methods",
        type=command.some((*METHODS, *OTHERS)),
        default=(),
        metavar="A,B",
        help=f"of {', '.join(METHODS)} [all]; or {', '.join(OTHERS)}",
    )
    add("--ratios", type=_ratios, default=(), metavar="X,Y", help="xi, k/D, or nearly 1/R [the figure's]")
    add("--rules", type=command.some(RULES), default=("sqrt",), metavar="A,B", help=f"ADC's: {', '.join(RULES)} [sqrt]")
    add("--seeds", type=command.seeds, default=(), metavar="A,B", help=f"[full: {SEEDS}, else {SEEDS[0]}]")
    add("--dataset", type=command.some(DATASETS), default=(), metavar="A,B", help="[the figure's]")
    add("--model", type=command.some(MODELS), default=(), metavar="A,B", help="[the figure's]")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="differ from the protocol; part of the row")
    command.add_place(parser, runs="outputs/paper", home=HOME)
    return parser


def _ratios(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers, got {text!r}") from None
    if not all(0 < ratio <= 1 for ratio in found):
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return found


if __name__ == "__main__":
    sys.exit(main())
