"""A run as its folder tells it: tables, summary, and a plot of one over the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flsplit.errors import UserError, nearest
from flsplit.record.units import axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUMS = {"bits": ("uplink_bits", "downlink_bits", "sync_bits")}  # what can be drawn beside the columns
_SHOWN = ("status", "final_test_accuracy", "best_test_accuracy", "rounds", "samples", "uplink_bits", "downlink_bits",
          "sync_bits", "xi", "seconds")  # fmt: skip


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        rounds: `rounds.parquet`, a row per round.
        clients: `clients.parquet`, a row per round and client that took part.
        summary: `summary.json`.
    """

    path: Path
    rounds: pd.DataFrame
    clients: pd.DataFrame
    summary: dict[str, Any]

    def plot(self, ax: Axes | None = None, *, x: str = "round", y: str = "test_accuracy", **line: Any) -> Axes:
        """Draw a column of `rounds` over another.

        Args:
            ax: where; None for pyplot's axes at hand.
            x: a column of `rounds`; `bits`, all that was sent; `seconds` since the start.
            y: the same.
            line: for `Axes.plot`; the label is the folder's name unless it says another.

        Returns:
            the axes.

        Raises:
            UserError: if there is no such column.
        """
        return draw([self.rounds], ax, x, y, [{"label": self.path.name, **line}])

    def __repr__(self) -> str:
        """The summary's main figures, a line each."""
        told = [f"{key:>20}  {self.summary[key]}" for key in _SHOWN if key in self.summary]
        return "\n".join([str(self.path), *told])

    def _repr_html_(self) -> str:
        """In a notebook: the summary's main figures."""
        told = "".join(
            f"<tr><th>{key}</th><td>{escape(str(self.summary[key]))}</td></tr>" for key in _SHOWN if key in self.summary
        )
        return f"<table><caption>{escape(str(self.path))}</caption>{told}</table>"


def read_run(folder: Path) -> Run:
    """Read what a finished run has left in its folder."""
    return Run(
        path=folder,
        rounds=pd.read_parquet(folder / "rounds.parquet"),
        clients=pd.read_parquet(folder / "clients.parquet"),
        summary=json.loads((folder / "summary.json").read_text()),
    )


def draw(tables: Sequence[pd.DataFrame], ax: Axes | None, x: str, y: str, lines: Sequence[Mapping[str, Any]]) -> Axes:
    """`Run.plot` of several `rounds`: each through those in which both are known, with units on the axes.

    Axes with a line in a unit keep that unit.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.gca()
    found = [pd.DataFrame({"x": values(rounds, x, "x"), "y": values(rounds, y, "y")}).dropna() for rounds in tables]
    largest = pd.concat(found).max()
    (x_label, x_unit), (y_label, y_unit) = axis(x, largest.x, ax.get_xlabel()), axis(y, largest.y, ax.get_ylabel())
    for points, line in zip(found, lines):
        ax.plot(points.x / x_unit, points.y / y_unit, **{"marker": "o", **line})
    ax.set(xlabel=x_label, ylabel=y_label)
    return ax


def values(rounds: pd.DataFrame, name: str, of: str) -> pd.Series:
    """What can be drawn of rounds: a column, or a sum.

    Args:
        rounds: as `rounds.parquet`.
        name: a column of numbers; `bits`, all that was sent; `seconds` since the start.
        of: for messages: which one it is for, "x" or "y".

    Raises:
        UserError: if there is no such column.
    """
    if name in SUMS:
        return rounds[list(SUMS[name])].sum(axis=1)
    if name not in (known := _known(rounds)):
        raise UserError(f"{of} must be one of {', '.join(known)}, got {name!r}{nearest(name, known)}")
    return rounds[name].cumsum() if name == "seconds" else rounds[name]


def check_all_have(name: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Refuse to draw what only some of several runs have; of what none has `values` tells.

    Args:
        name: as of `values`.
        tables: `rounds` of each run, by its folder's name.

    Raises:
        UserError: naming the runs without it.
    """
    without = [run for run, rounds in tables.items() if name not in _known(rounds)]
    if 0 < len(without) < len(tables):
        more = f" and {len(without) - 5} more" if len(without) > 5 else ""
        raise UserError(f"{', '.join(without[:5])}{more}: without {name}, which other runs have; leave such runs out")


def _known(rounds: pd.DataFrame) -> list[str]:
    return [*SUMS, *(column for column in rounds if rounds[column].dtype.kind in "iuf")]
