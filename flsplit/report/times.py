"""Where simulated time went: a bar for each client."""

from __future__ import annotations

import pandas as pd

from flsplit.report.style import figure, to_svg

PARTS = {  # columns of clients.parquet; colours of the house, and a grey for nothing
    "compute_seconds": ("computing", "#0072B2"),
    "transfer_seconds": ("sending and receiving", "#E69F00"),
    "waiting_seconds": ("waiting", "#d5d9e0"),
}
_MOST = 60  # bars; of more clients, those who were longest at work


def spent(clients: pd.DataFrame) -> pd.DataFrame:
    """Seconds of each part by client, over all rounds; empty where no time was simulated."""
    if any(column not in clients for column in PARTS):
        return pd.DataFrame(columns=list(PARTS), dtype=float)
    return clients.dropna(subset=list(PARTS)).groupby("client")[list(PARTS)].sum()


def bars_svg(times: pd.DataFrame, title: str, *, narrow: bool = False) -> str:
    """Stacked bars of `spent`, in their own unit."""
    busy = times.compute_seconds + times.transfer_seconds
    shown = times.loc[busy.nlargest(_MOST).index].sort_index()
    scale, unit = (3600, "hours") if shown.sum(axis=1).max() > 3 * 3600 else (1, "seconds")
    width = 4.6 if narrow else min(11.6, max(5.7, 0.28 * len(shown) + 2.2))
    with figure(width, 3.3) as drawing:
        axes = drawing.subplots()
        below = pd.Series(0.0, index=shown.index)
        places = range(len(shown))
        for column, (label, colour) in PARTS.items():
            heights = shown[column] / scale
            axes.bar(places, heights, bottom=below, color=colour, width=0.8, label=label)
            below = below + heights
        step = max(1, -(-len(shown) // (15 if narrow else 30)))
        axes.set_xticks(list(places)[::step], [str(client) for client in shown.index[::step]])
        axes.grid(False, axis="x")
        axes.set(xlabel="client", ylabel=f"simulated {unit}")
        if narrow:
            axes.legend(
                frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, columnspacing=1
            )
        else:
            axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
        return to_svg(drawing, title)
