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

NAMES = {
    "rows": "the most telling rows first; at the full scale all of fig4 follow",
    "fig1": "accuracy over the compression ratio, DeiT-S on CIFAR-100",
    "fig3": "ADC: accuracy over the shares of samples and of tokens that are kept",
    "fig4": "accuracy over the compression ratio, two data sets and two models",
    "fig5": "accuracy over what was sent, DeiT-T on Food101",
    "fig6": "ADC: accuracy over the batch size",
    "fig7": "accuracy over the split point",
    "fig8": "what ADC merges, looked at in a trained model",
    "table1": "what a step costs in the ledger's three prices; trains nothing",
    "table2": "ADC: accuracy by the vector whose clusters are merged",
    "rules": "ADC: its three rules for the number of clusters, reduced scale",
    "compare": "what is there beside the published numbers; trains nothing",
}
_CHOICE = ("methods", "ratios", "rules", "seeds", "dataset", "model", "set")  # options that say which runs
_UNREAD = {
    "fig3": ("methods", "ratios", "rules"), "fig6": ("methods",), "fig8": ("methods",), "table2": ("methods",),
    "rules": ("methods", "rules", "dataset", "model", "set"),
    "table1": (*_CHOICE, "machine", "list", "draw"), "compare": (*_CHOICE, "machine", "list", "draw"),
}  # fmt: skip
_TOOK = """
The scales medium and reduced have DeiT-T on CIFAR-100 alone, and one seed.
Rows that are there took, on two shared CPU cores at the reduced scale, 8 to 110 minutes each (14 in 10 hours); on an
NVIDIA H200 at the full scale, that of base 7 minutes. Give --list to see which runs a NAME has and which are done."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for a run that failed, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    return command.ended("experiments.paper", lambda: _make(arguments))


def _make(arguments: argparse.Namespace) -> None:
    results = Results(arguments.results)
    name = arguments.name
    command.refuse(name, arguments, *_UNREAD.get(name, ()))
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
    about = {name: f"{what}{_counted(name)}" for name, what in NAMES.items()}
    parser = argparse.ArgumentParser(
        prog="python -m experiments.paper", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=command.listed("NAME, and its runs at --scale full / medium / reduced:", about) + "\n" + _TOOK,
    )  # fmt: skip
    add = parser.add_argument
    add("name", choices=NAMES, metavar="NAME", help="what to make, see below")
    add(
        "--scale",
        choices=SCALES,
        help="the paper's protocol, for a GPU, or 96 px, for two CPU cores [full; compare: all there are]",
    )
    add(
        "--methods",
        type=command.some((*METHODS, *OTHERS)),
        default=(),
        metavar="A,B",
        help=f"of {', '.join(METHODS)} [all]; or {', '.join(OTHERS)}",
    )
    add("--ratios", type=_ratios, default=(), metavar="X,Y", help="xi, k/D, or nearly 1/R [the figure's]")
    add("--rules", type=command.some(RULES), default=(), metavar="A,B", help=f"ADC's: {', '.join(RULES)} [sqrt]")
    add("--seeds", type=command.seeds, default=(), metavar="A,B", help=f"[full: {SEEDS}, else {SEEDS[0]}]")
    add("--dataset", type=command.some(DATASETS), default=(), metavar="A,B", help="[the figure's]")
    add("--model", type=command.some(MODELS), default=(), metavar="A,B", help="[the figure's]")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="differ from the protocol; part of the row")
    command.add_place(parser, runs="outputs/paper", home=HOME)
    return parser


def _counted(name: str) -> str:
    """How many runs a figure or table takes at each scale."""
    if name in ("table1", "compare"):
        return ""
    if name == "rules":
        return f" ({len(rules.points('reduced', (0.2, 0.1), RULES, SEEDS[0]))})"
    seeds = {scale: SEEDS if scale == "full" else SEEDS[:1] for scale in SCALES}
    return f" ({' / '.join(str(len(points(name, Choice(scale=s, seeds=seeds[s])))) for s in SCALES)})"


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
