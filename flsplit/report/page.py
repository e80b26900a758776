"""The report: one HTML page that needs nothing beside itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from operator import itemgetter
from pathlib import Path

import pandas as pd

from flsplit.report import curves, means, partition, tables, times
from flsplit.report.css import CSS
from flsplit.report.labels import folder_names, short_labels
from flsplit.report.runs import ReportError, Run, find_runs, load_run
from flsplit.report.skew import skew
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


def _figure(svg: str, caption: str, kind: str = "") -> str:
    return f'<figure class="{kind}"><figcaption>{caption}</figcaption>{svg}</figure>'


def _legend(entries: Sequence[_Entry], *, single: bool = False) -> str:
    """Names runs by their lines; a lone one only where `single` asks for it."""
    if len(entries) == 1 and not single:
        return ""
    items = "".join(f"<li>{entry.style.swatch()}{escape(entry.label)}</li>" for entry in entries)
    return f'<ul class="legend">{items}</ul>'


def _lines(
    entries: Sequence[_Entry], x: Callable[[pd.DataFrame], pd.Series], y: Callable[[pd.DataFrame], pd.Series]
) -> list[curves.Curve]:
    made = [curves.curve(x(entry.run.rounds), y(entry.run.rounds), entry.style) for entry in entries]
    return [line for line in made if line is not None]


def _metrics_section(runs: Sequence[Run], cells: Sequence[str]) -> str:
    further = tables.metrics(runs, cells)
    return f"<h2>Further metrics</h2><p>Of the last evaluation.</p>{further}" if further else ""


def _accuracy_section(entries: Sequence[_Entry]) -> str:
    def percent(rounds: pd.DataFrame) -> pd.Series:
        return 100 * rounds["test_accuracy"].astype(float)

    def link(rounds: pd.DataFrame) -> pd.Series:
        return rounds["uplink_bits"] + rounds["downlink_bits"]

    by_round = _lines(entries, itemgetter("round"), percent)
    if not by_round:
        return "<h2>Test accuracy</h2><p>No round has been evaluated.</p>"
    by_bits = _lines(entries, link, percent)
    by_all = _lines(entries, lambda rounds: link(rounds) + rounds["sync_bits"], percent)
    plots: list[tuple[str, str, list[curves.Curve], str]] = []
    if any(line.x.max() > 0 for line in by_bits):
        what = "activations and gradients, both ways"
        plots.append(("bits", "Over activations and gradients sent", by_bits, what))
    if any(entry.run.rounds["sync_bits"].max() > 0 for entry in entries):
        plots.append(
            (
                "bits",
                "Over all that was sent, models included",
                by_all,
                "activations, gradients and models, both ways",
            )
        )
    for kind, column, caption, what in (
        ("seconds", "simulated_seconds", "Over simulated time", "simulated time"),
        ("joules", "joules", "Over the clients' energy", "energy of all clients"),
    ):
        timed = [entry for entry in entries if column in entry.run.rounds and entry.run.rounds[column].notna().any()]
        lines = _lines(timed, itemgetter(column), percent)
        if any(line.x.max() > 0 for line in lines):
            plots.append((kind, caption, lines, what))
    # The first plot takes the whole width where the others fill their row.
    whole = len(plots) % 2 == 0
    parts = [
        _figure(
            curves.over_rounds(
                by_round,
                title="Test accuracy over rounds",
                y_label="test accuracy (%)",
                size=curves.WHOLE if whole else curves.HALF,
            ),
            "Over rounds",
            "whole" if whole else "half",
        )
    ]
    for kind, caption, lines, what in plots:
        title = f"Test accuracy {caption.lower()}"
        svg = curves.over(lines, kind, title=title, y_label="test accuracy (%)", what=what)
        parts.append(_figure(svg, caption, "half"))
    return f'<h2>Test accuracy</h2>{_legend(entries)}<div class="plots">{"".join(parts)}</div>'


def _loss_section(entries: Sequence[_Entry]) -> str:
    parts = []
    for column, caption in (("train_loss", "Training loss"), ("test_loss", "Test loss")):
        lines = _lines(entries, itemgetter("round"), itemgetter(column))
        if lines:
            svg = curves.over_rounds(lines, title=f"{caption} over rounds", y_label=f"{caption.lower()} (nats)")
            parts.append(_figure(svg, f"{caption} over rounds", "half"))
    if not parts:
        return ""
    return f'<h2>Loss</h2>{_legend(entries)}<div class="plots">{"".join(parts)}</div>'


def _partition_section(entries: Sequence[_Entry]) -> str:
    """A picture and the measures of skew for each partition; runs that share one share them."""
    shared: dict[bytes, tuple[pd.DataFrame, list[_Entry]]] = {}
    for entry in entries:
        if not entry.run.partition.empty:
            counts = partition.counts(entry.run.partition)
            axes = (tuple(counts.index), tuple(counts.columns))
            key = repr(axes).encode() + counts.to_numpy().tobytes()
            shared.setdefault(key, (counts, []))[1].append(entry)
    if not shared:
        return ""
    parts = []
    for counts, users in shared.values():
        svg = partition.partition_svg(counts, "Samples of each label at each client")
        caption = escape(partition.sentence(counts))
        named = _legend(users, single=True) if len(shared) > 1 else ""
        parts.append(f"{named}{_figure(svg, caption, 'natural')}")
        if counts.to_numpy().any():
            parts.append(tables.skew(skew(users[0].run.partition)))
    note = "<p>The same in all runs.</p>" if len(entries) > 1 and len(shared) == 1 else ""
    return f'<h2>Partition</h2>{note}{"".join(parts)}<p class="note">{_SKEW}</p>'


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
            svg = partition.accuracy_svg(accuracies, entry.style, "Accuracy of each client")
            low, mean, high = (100 * accuracies).agg(["min", "mean", "max"])
            caption = (
                f"Accuracy on a client's own held-out samples, when it last took part: "
                f"mean {mean:.1f}% (dashed), {low:.1f}% to {high:.1f}%, {len(accuracies):,} clients"
            )
            parts.append(_figure(svg, caption, "natural"))
        if not spent.empty:
            svg = times.bars_svg(spent, "Where each client's time went")
            parts.append(_figure(svg, "Where each client's simulated time went, over all rounds", "natural"))
        if failures:
            parts.append(f"<p>Clients that failed:</p>{failures}")
    return f"<h2>Clients</h2>{''.join(parts)}" if parts else ""


def render(runs: Sequence[Run]) -> str:
    """The page's HTML for `runs`, in their order."""
    names = folder_names([run.folder for run in runs])
    labels = short_labels([run.config for run in runs], names)
    entries = [
        _Entry(run, label, name, Style.of(index))
        for index, (run, label, name) in enumerate(zip(runs, labels, names, strict=True))
    ]
    title = entries[0].label if len(runs) == 1 else f"{len(runs)} runs"
    cells = [tables.run_cell(entry.label, entry.name, entry.style) for entry in entries]
    plural = "s" * (len(runs) != 1)
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>flsplit: {escape(title)}</title>",
            f"<style>{CSS}</style></head><body><main>",
            f'<header><span class="brand">flsplit</span><h1>{escape(title)}</h1></header>',
            f"<h2>Result{plural}</h2>",
            tables.results(runs, cells),
            f'<p class="note">{_XI}</p>',
            means.section(runs),
            _metrics_section(runs, cells),
            "<h2>Settings</h2>",
            tables.settings(runs, cells),
            _accuracy_section(entries),
            _loss_section(entries),
            _partition_section(entries),
            _client_section(entries),
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
    if not out.parent.is_dir():
        raise ReportError(f"{out}: no folder {out.parent}; make it first or choose another --out")
    if out.is_dir():
        raise ReportError(f"{out}: is a folder; --out names the page, e.g. {out / 'report.html'}")
    if out.exists() and out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"{out}: exists and is no HTML page; choose another --out, e.g. report.html")
    found = find_runs(runs)
    if not found:
        raise ReportError("no run given; name a run's folder or one that contains run folders")
    html = render([load_run(folder) for folder in found])
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
