"""The page's tables: what runs reached, how they were set up, which clients failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from math import floor, log10
from typing import Any

import pandas as pd

from flsplit.data.skew import Skew, Spread
from flsplit.display.units import duration, missing
from flsplit.record.units import is_share
from flsplit.report.groups import Group
from flsplit.report.labels import ASPECTS, describe, other_differences
from flsplit.report.runs import ENDED, Run
from flsplit.report.seeds import mean_of
from flsplit.report.style import Style

_DASH = "\N{EN DASH}"
_STATUSES = {*ENDED, "failed", "unfinished"}


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
    """An HTML table from cells that are HTML already; every first cell names its row.

    One of the kind `cards` is shown as cards where it would be too wide: each cell carries the head of its column.
    """
    names = [f' data-head="{cell.replace("<wbr>", "")}"' if "cards" in kind else "" for cell in head[1:]]
    lines = [f'<div class="box"><div class="scroll"><table class="{kind}">']
    lines.append("<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr></thead>")
    lines.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td{name}>{cell}</td>" for name, cell in zip(names, rest))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    lines.append("</tbody></table></div></div>")
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
    return table(["run", "status", *(head for head, _ in _RESULTS)], rows, "results cards")


def seeds(groups: Sequence[Group]) -> str:
    """What runs that have ended reached on average over seeds, with its 95% interval; empty without any.

    A dash where one of them has no number, as one that has diverged.
    """
    if all(len(group.runs) == 1 for group in groups):
        return ""
    rows = []
    for group in groups:
        ended = [run for run in group.runs if run.ended]
        found = [[run.figure(key) for run in ended] for key, *_ in _MEANS]
        of_all = f" of {len(group.runs)}" if len(ended) < len(group.runs) else ""
        rows.append(
            [
                run_cell(group.label, group.label, group.style), f"{len(ended)}{of_all}",
                *(_mean(values, scale) for values, (_, _, scale) in zip(found, _MEANS)),
            ]
        )  # fmt: skip
    note = '<p class="note">Mean over seeds ± half of its 95% interval, if seeds are alike (Student&#8217;s t).</p>'
    return table(["mean over seeds", "runs", *(head for _, head, _ in _MEANS)], rows, "seeds cards") + note


_MEANS = (
    ("final_test_accuracy", "final acc. (%)", 0.01), ("best_test_accuracy", "best acc. (%)", 0.01), ("xi", "ξ", 1),
    ("uplink_bits", "uplink (Mb)", 1e6), ("downlink_bits", "downlink (Mb)", 1e6), ("sync_bits", "models (Mb)", 1e6),
)  # fmt: skip


def _mean(values: Sequence[Any], scale: float) -> str:
    if not values or any(map(missing, values)):  # a mean of the others would pass for one of all
        return _DASH
    known = [float(value) / scale for value in values]
    if len(known) == 1:
        return number(known[0])
    mean, half = mean_of(known)
    digits = max(0, 2 - floor(log10(mean))) if 0 < mean < 1000 else 0
    return f"{mean:,.{digits}f} ± {half:,.{digits}f}"


def metrics(runs: Sequence[Run], cells: Sequence[str]) -> str:
    """The last evaluation's further metrics (all columns `test_NAME` but loss and accuracy); empty without any."""
    evaluated = [run.rounds[run.evaluated] for run in runs]
    last = [rounds.filter(regex=r"^test_(?!loss$|accuracy$)").tail(1) for rounds in evaluated]
    names = list(dict.fromkeys(name for rows in last for name in rows))
    heads = [escape(name.removeprefix("test_")) + " (%)" * is_share(name) for name in names]
    rows = [
        [cell, *(_accuracy(found.get(name)) if is_share(name) else number(found.get(name)) for name in names)]
        for cell, found in zip(cells, map(_only, last))
    ]
    return table(["run", *heads], rows, "results cards") if names else ""


def _only(rows: pd.DataFrame) -> dict[str, Any]:
    return {} if rows.empty else dict(rows.iloc[0])


def settings(groups: Sequence[Group], cells: Sequence[str]) -> str:
    """How runs were set up: the main settings, then whatever else is not the same in all of them."""
    first = [group.runs[0] for group in groups]
    main = {aspect: [describe(run.config, aspect) or _DASH for run in first] for aspect in ASPECTS}
    main["seed"] = [", ".join(describe(run.config, "seed") for run in group.runs) for group in groups]
    shared = {} if len(groups) == 1 else {aspect: told[0] for aspect, told in main.items() if len(set(told)) == 1}
    columns = {key: told for key, told in main.items() if key not in shared}
    # A long key may break after each of its parts.
    for key, values in other_differences([run.config for run in first]).items():
        columns[escape(key).replace(".", ".<wbr>").replace("_", "_<wbr>")] = [value or _DASH for value in values]
    rows = [[cell, *(escape(told[number]) for told in columns.values())] for number, cell in enumerate(cells)]
    same = "".join(f"<div><dt>{key}</dt><dd>{escape(told)}</dd></div>" for key, told in shared.items())
    return (f'<p>In all runs:</p><dl class="flow">{same}</dl>' if same else "") + (
        table(["run", *columns], rows, "settings cards") if columns else ""
    )


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
        [
            "effective classes, mean over clients",
            *map(number, (measures.effective.mean, measures.effective.min, measures.effective.median)),
            number(measures.effective.max),
            "",
            "one label only",
        ],
        ["clients that lack a label", number(measures.lacking), _DASH, _DASH, _DASH, "all hold every label", ""],
        ["samples, mean over clients", *map(number, (sizes.mean, sizes.min, sizes.median, sizes.max)), "", ""],
        [
            "Gini coefficient of samples per client",
            *(share(measures.gini), _DASH, _DASH, _DASH),
            "all clients hold equally many",
            "one client of many holds all",
        ],
    ]
    return table(["skew", "value", "min", "median", "max", "0 means", "1 means"], rows, "skew cards")


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
