"""What a link that disturbs values or loses packets does to training: accuracy by channel, for methods, one client.

Both ways are disturbed, at every step. Models are scored without the channel, so that accuracy says what training has
come to. Methods train for as many epochs as they get out of the bits of four without compression, whatever a channel
adds to these bits, on the 20 superclasses of CIFAR-100, which are learned sooner than its 100 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from experiments.point import Point
from experiments.results import Results, mean, told
from experiments.seeds import like_for_like
from experiments.study.link import SCALE, SEEDS, STYLES, TASK, name, run_of, span
from flsplit.report.style import figure

METHODS = (("base", None), ("adc", 0.2), ("topk", 0.2))
LEVELS = {
    "awgn": ("snr_db", (10.0, 0.0, 20.0)),
    "rayleigh": ("snr_db", (10.0, 0.0, 20.0)),
    "erasure": ("loss", (0.1, 0.01, 0.3)),
}
_PANELS = {
    "awgn": "AWGN: SNR in each value, dB",
    "rayleigh": "Rayleigh block fading, gain known: mean SNR, dB",
    "erasure": "packets of 1,500 bytes lost for good",
}


def points(seeds: Sequence[int] = SEEDS, options: Sequence[str] = ()) -> list[Point]:
    """One run each, all methods over a channel before the next channel; `clean` first.

    Args:
        seeds: of the runs.
        options: overrides for every run.
    """
    levels = max(len(found) for _, found in LEVELS.values())
    channels = [(), *(_channel(kind, level) for level in range(levels) for kind in LEVELS)]
    return [
        run_of(method, value, seed, (*channel, *options))
        for seed, channel, (method, value) in product(seeds, channels, METHODS)
    ]


def gather(wanted: Sequence[Point], results: Results) -> pd.DataFrame:
    """A row for each method, channel and level that has been run: means over seeds, and what was lost.

    The seeds are the same in all rows; see `like_for_like`. `lost` is in percentage points, against the same method
    without a channel.
    """
    found = []
    for point in like_for_like(wanted, results):
        row, (channel, level) = results.row(point), channel_of(point)
        assert row is not None
        found.append({
            "method": point.method, "value": point.value, "channel": channel, "level": level, "seed": point.seed,
            "accuracy": 100 * row.final_test_accuracy,
        })  # fmt: skip
    if not found:
        return pd.DataFrame()
    rows = pd.DataFrame(found).sort_values(["channel", "level"], key=_in_order, kind="stable", ignore_index=True)
    clean = rows[rows.channel == "clean"].set_index(["method", "seed"]).accuracy
    keys = pd.Series(list(zip(rows.method, rows.seed)))
    rows["lost"] = keys.map(clean) - rows.accuracy
    return rows.groupby(["channel", "level", "method", "value"], dropna=False, sort=False, as_index=False).agg(
        accuracy=("accuracy", mean), low=("accuracy", "min"), high=("accuracy", "max"),
        lost=("lost", mean), seeds=("seed", "nunique"),
    )  # fmt: skip


def _in_order(column: pd.Series) -> pd.Series:
    """Channels as they are listed, `clean` first; levels as they are."""
    return column.map(["clean", *LEVELS].index) if column.name == "channel" else column


def table(rows: pd.DataFrame) -> str:
    """Accuracy of every row, and the points that its channel takes."""
    lines = [f"{'channel':9} {'level':>5} {'method':10} {'accuracy':>8} {'range':>13} {'lost':>6} {'seeds':>5}"]
    for row in rows.itertuples():
        level = "" if pd.isna(row.level) else f"{row.level:g}"
        lost = "" if row.channel == "clean" or pd.isna(row.lost) else f"{row.lost:.2f}"
        lines.append(
            f"{row.channel:9} {level:>5} {name(row.method, row.value):10} {told(row.accuracy, '8.2f')} "
            f"{span(row.low, row.high, of=row.accuracy)} {lost:>6} {row.seeds:5}"
        )
    return "\n".join([*lines, "lost: percentage points, against the same method without a channel"])


def draw(rows: pd.DataFrame, results: Results, folder: Path, options: Sequence[str] = ()) -> list[Path]:
    """A panel for each kind of channel: accuracy over its level, a line for each method, dashed without a channel.

    Args:
        rows: from `gather`.
        results: not needed; every study is handed its table.
        folder: where the image goes.
        options: what all rows have beside the study's own settings; part of the name.

    Returns:
        the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with figure(11, 4) as drawing:
        panels = drawing.subplots(1, len(LEVELS), sharey=True)
        for axes, (kind, (_, levels)) in zip(panels, LEVELS.items()):
            for method in METHODS:
                style, own = STYLES[method], rows[rows.method == method[0]]
                if own.empty:
                    continue
                for row in own[own.channel == "clean"].itertuples():
                    axes.axhline(row.accuracy, color=style.colour, linestyle="--", linewidth=1)
                at = own[own.channel == kind].sort_values("level")
                reach = [at.accuracy - at.low, at.high - at.accuracy]
                axes.errorbar(
                    [sorted(levels).index(level) for level in at.level], at.accuracy, yerr=reach, color=style.colour,
                    marker=style.marker, markersize=5, capsize=2, label=name(*method),
                )  # fmt: skip
            axes.set_xticks(range(len(levels)), [f"{level:g}" for level in sorted(levels)])
            axes.set(xlabel=_PANELS[kind], xlim=(-0.3, len(levels) - 0.7))
        panels[0].set_ylabel("test accuracy, %")
        panels[0].legend(frameon=False, fontsize=9)
        drawing.suptitle(f"{TASK}; dashed: no channel ({SCALE})", fontsize=10)
        path = folder / f"{'-'.join(['noisy_link', SCALE, *options])}.png"
        drawing.savefig(path, dpi=130)
    return [path]


def channel_of(point: Point) -> tuple[str, float | None]:
    """The channel of a run, and how bad it is: its SNR in dB, or the share of packets lost."""
    given = dict(option.split("=", 1) for option in point.options)
    kind = given.get("channel", "clean")
    return (kind, float(given[f"channel.{LEVELS[kind][0]}"])) if kind in LEVELS else (kind, None)


def _channel(kind: str, level: int) -> tuple[str, ...]:
    key, levels = LEVELS[kind]
    return f"channel={kind}", f"channel.{key}={levels[level]:g}"
