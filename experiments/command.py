"""What the commands of the experiments have in common: where things are, how they end, what is listed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from experiments.folder import MACHINE
from experiments.point import Point
from experiments.results import Results
from experiments.runner import Place
from flsplit.errors import UNREAD, RunFailed, UserError, explained, is_unread

Value = TypeVar("Value", str, int, float)


def listed(title: str, rows: Mapping[str, str]) -> str:
    """Names and what they are, for the end of what `--help` shows."""
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:<{width}}  {what}" for name, what in rows.items())])


def add_place(parser: argparse.ArgumentParser, *, runs: str, home: Path) -> None:
    """The options that say where data are and results go."""
    add = parser.add_argument
    add("--machine", action="append", default=[], metavar="KEY=VALUE", help="such as engine.cpus_per_client=2")
    add("--data", metavar="PATH", help="local copy of the dataset [the Hub]")
    add("--weights", metavar="FILE", help="pretrained weights [the Hub]")
    add("--runs", type=Path, default=Path(runs), metavar="FOLDER", help=f"[{runs}]")
    add("--results", type=Path, default=home, metavar="FOLDER", help="with results.csv and curves/ [beside the code]")
    add("--figures", type=Path, default=home / "figures", metavar="FOLDER", help="[beside the code]")
    add("--list", action="store_true", help="show the runs and which are done, do nothing")
    add("--draw", action="store_true", help="draw the rows that there are, run nothing")


def refuse(name: str, arguments: argparse.Namespace, *keys: str) -> None:
    """Refuse options that what is made takes no notice of.

    Args:
        name: what is made.
        arguments: as read.
        keys: those options, without dashes.

    Raises:
        UserError: if one is given.
    """
    for key in keys:
        if getattr(arguments, key):
            raise UserError(f"--{key}: {name} takes no notice of it, leave it out")


def place(arguments: argparse.Namespace) -> Place:
    """What `add_place` has read.

    Raises:
        UserError: if `--machine` names a key that is not about the machine.
    """
    for override in arguments.machine:
        key = override.partition("=")[0]
        if key.partition(".")[0] not in MACHINE:
            raise UserError(
                f"--machine {override}: {key} may change the numbers, so it is part of the row: give it with --set "
                f"(of the machine are {', '.join(MACHINE)})"
            )
    return Place(
        runs=arguments.runs, data=arguments.data, weights=arguments.weights, overrides=tuple(arguments.machine)
    )


def show(points: Sequence[Point], results: Results) -> None:
    """List runs, which are done, and how many."""
    done = [results.row(point) is not None for point in points]
    for point, there in zip(points, done):
        print(point.slug, "(done)" if there else "")
    print(f"{sum(done)} of {len(points)} done")


def ended(name: str, work: Callable[[], None]) -> int:
    """Work, and turn what stops it into a line and an exit code.

    Returns:
        0, 1 for a run that failed or a fault of the program, 2 for a mistake of the user's, 130 when interrupted, 141
        when nobody reads the output any more.
    """
    try:
        work()
        sys.stdout.flush()
    except UserError as error:
        text = str(error).replace("dataset.path=", "--data ").replace("model.pretrained=FILE", "--weights FILE")
        return _say(name, text, 2)
    except RunFailed as error:
        return _say(name, str(error), 1)
    except KeyboardInterrupt:
        return _say(name, "interrupted; the same command goes on from here", 130)
    except Exception as error:
        if is_unread(error):
            return UNREAD
        return _say(name, explained(error, None), 1)
    return 0


def seeds(text: str) -> tuple[int, ...]:
    """`A,B` as whole numbers.

    Raises:
        argparse.ArgumentTypeError: if they are none.
    """
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers, got {text!r}") from None


def some(known: Sequence[Value]) -> Callable[[str], tuple[Value, ...]]:
    """A reader of `A,B`, all of them known, which raises argparse.ArgumentTypeError if one is not."""
    named = {str(value): value for value in known}

    def read(text: str) -> tuple[Value, ...]:
        words = text.split(",")
        for word in words:
            if word not in named:
                raise argparse.ArgumentTypeError(f"must be of {', '.join(named)}, got {word!r}")
        return tuple(named[word] for word in words)

    return read


def _say(name: str, text: str, code: int) -> int:
    print(f"{name}: {text}", file=sys.stderr)
    return code
