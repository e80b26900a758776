"""The report: one HTML page that needs nothing beside itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from flsplit.data.skew import count_table, skew
from flsplit.report import cite, content, lines, partition, tables, times
from flsplit.report.charts import chart
from flsplit.report.css import CSS
from flsplit.report.groups import Group, groups
from flsplit.report.labels import folder_names, short_labels
from flsplit.report.runs import ReportError, Run, find_runs, load_run
from flsplit.report.style import Style

_XI = (
    "ξ: bits of activations and gradients sent, relative to the same steps without compression "
    "(<code>base</code>); the mean of the uplink's and the downlink's ratio. 1 saves nothing, 0.1 sends a "
    "tenth. Uplink and downlink are activations and gradients; models are those exchanged between clients "
    "and server. 1 Mb is 10<sup>6</sup> bits."
)
_SKEW = (
    "Label entropy is divided by the logarithm of the number of labels. Label distance is total variation: half the "
    "sum of the absolute differences between label shares; between a client and all samples, it is half the earth "
    "mover's distance of Zhao et al. 2018. Every client counts the same. Clients of few samples look skewed even "
    "where samples were dealt at random."
)


@dataclass(frozen=True)
class _Entry:
    """A run with the name and style that it has on the page."""

    run: Run
    label: str
    name: str
    style: Style


def _metrics_section(runs: Sequence[Run], cells: Sequence[str]) -> str:
    further = tables.metrics(runs, cells)
    return f"<h2>Further metrics</h2><p>Of the last evaluation.</p>{further}" if further else ""


def _partition_section(entries: Sequence[_Entry]) -> str:
    """A picture and the measures of skew for each partition; runs that share one share them."""
    shared: dict[bytes, tuple[pd.DataFrame, list[_Entry]]] = {}
    for entry in entries:
        if not entry.run.partition.empty:
            counts = _named(count_table(entry.run.partition), (entry.run.summary or {}).get("classes", ()))
            axes = (tuple(counts.index), tuple(counts.columns))
            key = repr(axes).encode() + counts.to_numpy().tobytes()
            shared.setdefault(key, (counts, []))[1].append(entry)
    if not shared:
        return ""
    parts = []
    for counts, users in shared.values():
        parts.append(lines.legend([(user.label, user.style) for user in users], single=True) if len(shared) > 1 else "")
        parts.append(_partition(counts))
        if counts.to_numpy().any():
            parts.append(tables.skew(skew(users[0].run.partition)))
    note = "<p>The same in all runs.</p>" if len(entries) > 1 and len(shared) == 1 else ""
    return f'<h2>Partition</h2>{note}{"".join(parts)}<p class="note">{_SKEW}</p>'


def _named(counts: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """With the names of labels, where the run has come to tell them."""
    return counts.rename(index=dict(enumerate(classes)))


def _partition(counts: pd.DataFrame) -> str:
    title = "Samples of each label at each client"

    def draw(narrow: bool) -> str:
        return partition.partition_svg(counts, title, narrow=narrow)

    data = counts.T.reset_index()
    return chart(draw, escape(partition.sentence(counts)), "natural heat", file=title, data=data)


def _accuracy_of_each(accuracies: pd.Series, style: Style) -> str:
    low, mean, high = (100 * accuracies).agg(["min", "mean", "max"])
    caption = (
        f"Accuracy on a client's own held-out samples, when it last took part: "
        f"mean {mean:.1f}% (dashed), {low:.1f}% to {high:.1f}%, {len(accuracies):,} clients"
    )
    title = "Accuracy of each client"

    def draw(narrow: bool) -> str:
        return partition.accuracy_svg(accuracies, style, title, narrow=narrow)

    return chart(draw, caption, "natural", file=title, data=accuracies.reset_index())


def _time_of_each(spent: pd.DataFrame) -> str:
    title = "Where each client's time went"

    def draw(narrow: bool) -> str:
        return times.bars_svg(spent, title, narrow=narrow)

    caption = "Where each client's simulated time went, over all rounds"
    return chart(draw, caption, "natural", file=title, data=spent.reset_index())


def _client_section(entries: Sequence[_Entry]) -> str:
    parts = []
    for entry in entries:
        accuracies = partition.last_accuracies(entry.run.clients)
        failures, spent = tables.failures(entry.run.clients), times.spent(entry.run.clients)
        if accuracies.empty and not failures and spent.empty:
            continue
        if len(entries) > 1:
            parts.append(f"<h3>{entry.style.swatch()}{escape(entry.label)}</h3>")
        if not accuracies.empty:
            parts.append(_accuracy_of_each(accuracies, entry.style))
        if not spent.empty:
            parts.append(_time_of_each(spent))
        if failures:
            parts.append(f"<p>Clients that failed:</p>{failures}")
    return f"<h2>Clients</h2>{''.join(parts)}" if parts else ""


def _group_cell(group: Group, cells: Sequence[str], runs: Sequence[Run]) -> str:
    if len(group.runs) == 1:
        return cells[list(runs).index(group.runs[0])]
    return tables.run_cell(group.label, group.label, group.style)


def render(runs: Sequence[Run], *, refresh: float | None = None) -> str:
    """The page's HTML for `runs`, in their order; it is loaded anew every `refresh` seconds if they are given."""
    names = folder_names([run.folder for run in runs])
    labels = short_labels([run.config for run in runs], names)
    grouped = groups(runs, names)
    styles = {run.folder: group.style for group in grouped for run in group.runs}
    entries = [_Entry(run, label, name, styles[run.folder]) for run, label, name in zip(runs, labels, names)]
    title = entries[0].label if len(runs) == 1 else f"{len(runs)} runs"
    cells = [tables.run_cell(entry.label, entry.name, entry.style) for entry in entries]
    plural = "s" * (len(runs) != 1)
    again = [] if refresh is None else [f'<meta http-equiv="refresh" content="{refresh:g}">']
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            *again,
            f"<title>flsplit: {escape(title)}</title>",
            f"<style>{CSS}</style></head><body><main>",
            f'<header><span class="brand">flsplit</span><h1>{escape(title)}</h1></header>',
            f"<h2>Result{plural}</h2>",
            content.unlike(runs, names),
            tables.seeds(grouped),
            tables.results(runs, cells),
            f'<p class="note">{_XI}</p>',
            _metrics_section(runs, cells),
            "<h2>Settings</h2>",
            tables.settings(grouped, [_group_cell(group, cells, runs) for group in grouped]),
            lines.accuracy(grouped),
            lines.loss(grouped),
            _partition_section(entries),
            _client_section(entries),
            cite.section(grouped),
            "</main></body></html>\n",
        )
    )


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Write one self-contained HTML page about runs.

    Args:
        runs: run folders, or folders that contain run folders.
        out: the page to write; its folder must exist. It appears complete or not at all.

    Raises:
        ReportError: if there is no run, a run cannot be read, or `out` cannot be written.
    """
    check_out(out)
    found = find_runs(runs)
    if not found:
        raise ReportError("no run given; name a run's folder or one that contains run folders")
    write_page(render([load_run(folder) for folder in found]), out)


def check_out(out: Path) -> None:
    """Refuse a place where no page can be.

    Raises:
        ReportError: see there.
    """
    if not out.parent.is_dir():
        raise ReportError(f"{out}: no folder {out.parent}; make it first or choose another --out")
    if out.is_dir():
        raise ReportError(f"{out}: is a folder; --out names the page, e.g. {out / 'report.html'}")
    if out.exists() and out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"{out}: exists and is no HTML page; choose another --out, e.g. report.html")


def write_page(html: str, out: Path) -> None:
    """Put a page in its place, complete or not at all.

    Raises:
        ReportError: if it cannot be written.
    """
    try:
        handle, draft = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part")
    except OSError as error:
        raise ReportError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(html)
        umask = os.umask(0)
        os.umask(umask)
        Path(draft).chmod(0o666 & ~umask)  # mkstemp's files are private; a page is as readable as any file
        Path(draft).replace(out)
    except OSError as error:
        Path(draft).unlink(missing_ok=True)
        raise ReportError(f"{out}: cannot be written: {error.strerror}") from error
