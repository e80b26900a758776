"""Accuracy over `faults.dropout`, without compression and with ADC: an example of faults that are put in on purpose.

Ten clients with skewed digits; the same clients are away in both. What is there is not run again, what was cut off goes
on. Runs that differ from the example have folders, a table and a figure of their own, named after what differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd

import flsplit
from experiments import command
from experiments.folder import check_all_ended, check_same, is_begun, note_commit, passed_over, trained_by
from experiments.results import check_whole, mean, told
from flsplit.errors import RunFailed, UserError
from flsplit.record.run import read_run
from flsplit.report.style import Style, figure

HOME = Path(__file__).parent
METHODS = {"base": ["compressor=base"], "adc": ["compressor=adc", "compressor.ratio=0.25"]}
DROPOUT = (0.0, 0.2, 0.4, 0.6)  # with more, all ten are away twice in some round, which ends the run
SEEDS = (0, 1, 2)
COLUMNS = [
    "method", "dropout", "seed", "away", "rounds", "final_test_accuracy", "uplink_bits", "device", "commit",
]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for a run that failed, 2 for a mistake of the user's, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m experiments.dropout", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=command.seeds, default=SEEDS, metavar="A,B", help="[0,1,2]")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="differ from the example; part of all names")
    add("--runs", type=Path, default=Path("outputs/dropout"), help="folder of the runs [outputs/dropout]")
    add("--home", type=Path, default=HOME, help="folder of results.csv and accuracy.png [beside this file]")
    chosen = parser.parse_args(argv)
    return command.ended("experiments.dropout", lambda: make(chosen.seeds, chosen.set, chosen.runs, chosen.home))


def make(seeds: Sequence[int], options: Sequence[str], runs: Path, home: Path) -> pd.DataFrame:
    """Run what has no row in the table, append its row, and draw the table.

    Args:
        seeds: of the runs; rows of others that the table has already stay in it.
        options: overrides for every run; part of all names.
        runs: where the runs' folders are.
        home: where table and figure are.

    Returns:
        a row per method, dropout and seed.

    Raises:
        UserError: if the table there is cut off or is another, or a folder holds a run with other settings; see
            `check_same`.
        RunFailed: if a run failed, or, at the end, naming those that diverged; the others are in table and figure.
    """
    own, diverged = _suffix(options), list[str]()
    path, wanted = home / f"results{own}.csv", list(product(seeds, DROPOUT, METHODS))
    there = {(row.seed, row.dropout, row.method) for row in _read(path).itertuples()}
    for seed, dropout, method in wanted:
        if (seed, dropout, method) in there:
            continue
        folder = runs / f"{method}-{dropout:g}-s{seed}{own}"
        keys = [*METHODS[method], f"faults.dropout={dropout:g}", f"seed={seed}", "engine=inline", "rounds=30", *options]
        try:
            run = finished(folder, keys)
        except RunFailed as error:
            diverged.append(passed_over(folder.name, error))
            continue
        row = {
            "method": method, "dropout": dropout, "seed": seed, "away": run.clients.injected.eq("dropout").mean(),
            **{key: run.summary[key] for key in ("rounds", "final_test_accuracy", "uplink_bits", "device")},
            "commit": trained_by(folder),
        }  # fmt: skip
        pd.DataFrame([row], columns=COLUMNS).to_csv(path, mode="a", header=not path.exists(), index=False)
        print(f"{method} dropout={dropout:g} seed={seed}: {told(row['final_test_accuracy'], '.1%')}", flush=True)
    table = _read(path)
    if not table.empty:
        draw(table, home / f"accuracy{own}.png")
    check_all_ended(diverged, len(wanted))
    return table


def _read(path: Path) -> pd.DataFrame:
    """The table, by seed.

    Raises:
        UserError: if it is cut off, or has other columns.
    """
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    check_whole(path)
    rows = pd.read_csv(path, float_precision="round_trip", dtype={"device": str, "commit": str})
    if list(rows) != COLUMNS:
        raise UserError(f"{path}: the columns must be {', '.join(COLUMNS)}, got {', '.join(rows)}")
    rows["final_test_accuracy"] = rows.final_test_accuracy.astype(float)
    return rows.sort_values("seed", kind="stable", ignore_index=True)


def _suffix(options: Sequence[str]) -> str:
    """What names end with where runs differ from the example."""
    text = "".join(f"-{option}" for option in options)
    return "".join(c if c.isalnum() or c in "-._=" else "_" for c in text)


def finished(folder: Path, keys: Sequence[str]) -> flsplit.Run:
    """The run in a folder, begun, taken up or read.

    Raises:
        UserError: if the folder holds a run with other settings; see `check_same`.
    """
    begun = is_begun(folder)
    if begun:
        check_same(folder, keys)
    summary = folder / "summary.json"
    if summary.exists() and json.loads(summary.read_text())["status"] == "completed":
        return read_run(folder)
    note_commit(folder)
    return flsplit.run([f'resume="{folder}"'] if begun else [*keys, f'out="{folder}"'])


def draw(table: pd.DataFrame, path: Path) -> None:
    """Means over seeds, with the least and the most; no point where a run diverged."""
    with figure(5.2, 3.4) as drawing:
        axes = drawing.subplots()
        for index, (method, rows) in enumerate(table.groupby("method", sort=False)):
            found = (100 * rows.set_index("dropout").final_test_accuracy).groupby(level=0)
            y, style = found.agg(mean), Style.of(index)
            span = [y - found.min(), found.max() - y]
            axes.errorbar(y.index, y, yerr=span, color=style.colour, marker=style.marker, capsize=3, label=str(method))
        axes.set(xlabel="probability that a client is away in a round", ylabel="final test accuracy, %")
        axes.legend(frameon=False)
        drawing.savefig(path, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
