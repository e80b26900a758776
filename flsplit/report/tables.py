"""The page's tables: what runs reached, how they were set up, which clients failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import pandas as pd

from flsplit.display.units import duration, missing
from flsplit.report.labels import ASPECTS, describe, other_differences
from flsplit.report.runs import Run
from flsplit.report.skew import Skew, Spread
from flsplit.report.style import Style

_DASH = "\N{EN DASH}"
_STATUSES = {"completed", "budget", "failed", "unfinished"}


def number(value: Any, scale: float = 1.0) -> str:
    """A number for a table: three significant digits, or whole with thousands separated."""
    if missing(value):
        return _DASH
    scaled = float(value) / scale
    if abs(scaled) >= 100 or scaled == int(scaled):
        return f"{scaled:,.0f}"
    return f"{scaled:.3g}"


def _accuracy(value: Any) -> str:
    return _DASH if missing(value) else f"{100 * value:.2f}"


def _rounds(run: Run) -> str:
    done, planned = run.figure("rounds"), run.config.get("rounds")
    return number(0 if done is None else done) + (f" / {planned}" if planned is not None else "")


def _seconds(run: Run) -> str:
    seconds = run.figure("seconds")
    return _DASH if missing(seconds) else duration(seconds)


_RESULTS: tuple[tuple[str, Callable[[Run], str]], ...] = (
    ("rounds", _rounds),
    ("final acc. (%)", lambda run: _accuracy(run.figure("final_test_accuracy"))),
    ("best acc. (%)", lambda run: _accuracy(run.figure("best_test_accuracy"))),
    ("ξ", lambda run: number(run.figure("xi"))),
    ("uplink (Mb)", lambda run: number(run.figure("uplink_bits"), 1e6)),
    ("downlink (Mb)", lambda run: number(run.figure("downlink_bits"), 1e6)),
    ("models (Mb)", lambda run: number(run.figure("sync_bits"), 1e6)),
    ("samples", lambda run: number(run.figure("samples"))),
    ("time", _seconds),
    ("samples/s", lambda run: number(run.figure("samples_per_second"))),
    ("device", lambda run: str(run.figure("device") or _DASH)),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """An HTML table from cells that are HTML already; every first cell names its row."""
    lines = [f'<div class="scroll"><table class="{kind}">']
    lines.append("<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr></thead>")
    lines.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def run_cell(label: str, name: str, style: Style) -> str:
    """The cell that names a run: its line in the plots, its label, its folder."""
    folder = f'<span class="folder">{escape(name)}</span>' if name != label else ""
    return f'{style.swatch()}<span class="run">{escape(label)}{folder}</span>'


def _status(run: Run) -> str:
    kind = run.status if run.status in _STATUSES else "other"
    return f'<span class="status {kind}">{escape(run.status)}</span>'


def results(runs: Sequence[Run], cells: Sequence[str]) -> str:
    """What the runs reached; `cells` name them."""
    rows = [[cell, _status(run), *(escape(show(run)) for _, show in _RESULTS)] for run, cell in zip(runs, cells)]
    return table(["run", "status", *(head for head, _ in _RESULTS)], rows, "results")


def metrics(runs: Sequence[Run], cells: Sequence[str]) -> str:
    """The last evaluation's further metrics (all columns `test_NAME` but loss and accuracy); empty without any."""
    evaluated = [run.rounds[run.rounds["test_accuracy"].notna()] for run in runs]
    last = [rounds.filter(regex=r"^test_(?!loss$|accuracy$)").tail(1) for rounds in evaluated]
    names = list(dict.fromkeys(name for rows in last for name in rows))
    rows = [[cell, *(number(found.get(name)) for name in names)] for cell, found in zip(cells, map(_only, last))]
    return table(["run", *(escape(name.removeprefix("test_")) for name in names)], rows, "results") if names else ""


def _only(rows: pd.DataFrame) -> dict[str, Any]:
    return {} if rows.empty else dict(rows.iloc[0])


def settings(runs: Sequence[Run], cells: Sequence[str]) -> str:
    """How the runs were set up: the main settings, then whatever else is not the same in all of them."""
    differing = other_differences([run.config for run in runs])
    rows = []
    for index, (run, cell) in enumerate(zip(runs, cells)):
        main = [describe(run.config, aspect) or _DASH for aspect in ASPECTS]
        other = [values[index] or _DASH for values in differing.values()]
        rows.append([cell, *(escape(text) for text in (*main, *other))])
    # A long key may break after each of its parts.
    other_heads = [escape(key).replace(".", ".<wbr>").replace("_", "_<wbr>") for key in differing]
    return table(["run", *ASPECTS, *other_heads], rows, "settings")


def skew(measures: Skew) -> str:
    """How far a partition is from IID, with what 0 and 1 mean."""

    def share(value: float | None) -> str:
        return _DASH if value is None else f"{value:.3f}"

    def shares(spread: Spread | None) -> list[str]:
        if spread is None:
            return [_DASH] * 4
        return [share(value) for value in (spread.mean, spread.min, spread.median, spread.max)]

    sizes = measures.samples
    rows = [
        ["label entropy, mean over clients", *shares(measures.entropy), "one label only", "all labels equally often"],
        [
            "label distance, mean over pairs of clients",
            *(share(measures.pairwise_distance), _DASH, _DASH, _DASH),
            "same shares of labels",
            "no label in common",
        ],
        [
            "label distance from all samples, mean over clients",
            *shares(measures.global_distance),
            "same shares of labels",
            "only labels that hardly occur elsewhere",
        ],
        ["samples, mean over clients", *map(number, (sizes.mean, sizes.min, sizes.median, sizes.max)), "", ""],
        [
            "Gini coefficient of samples per client",
            *(share(measures.gini), _DASH, _DASH, _DASH),
            "all clients hold equally many",
            "one client of many holds all",
        ],
    ]
    return table(["skew", "value", "min", "median", "max", "0 means", "1 means"], rows, "skew")


def failures(clients: pd.DataFrame, most: int = 30) -> str:
    """Clients that failed, worst first, with their rounds; empty if none did."""
    failed = clients[clients["failed"].fillna(False).astype(bool)]
    if failed.empty:
        return ""
    grouped = failed.groupby("client")["round"].apply(lambda rounds: sorted(int(number) for number in rounds))
    ordered = sorted(grouped.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    rows = [
        [escape(str(client)), str(len(rounds)), ", ".join(map(str, rounds[:20])) + " …" * (len(rounds) > 20)]
        for client, rounds in ordered[:most]
    ]
    left = len(ordered) - len(rows)
    more = f"<p>{left} more client{'s' * (left != 1)} failed at least once.</p>" if left else ""
    return table(["client", "failures", "rounds"], rows, "failures") + more
