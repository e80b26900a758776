"""Seconds and joules to an accuracy over networks, and the bandwidth from which compression stops paying.

Where all clients are waited for, what they learn does not depend on their network: such curves are timed here over any
network, by flsplit's clock. One client: the paper's rows at reduced scale; it gets its model once and keeps it, as in
the paper (`splitfed_v3` of one client). Ten clients whose devices differ: runs of their own, one for all networks where
rounds are synchronous, one for each where a deadline or a buffer decides who is heard. Between two evaluations,
accuracy is taken to grow evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments.paper.reported import HOME as PAPER
from experiments.point import SCALES, Point
from experiments.results import Results
from experiments.study.link import SEEDS, STYLES, name
from flsplit.compose import compose
from flsplit.ledger.moves import ModelSize, Moves
from flsplit.network import Clock, NetworkConfig, Work
from flsplit.network.clock import Round, side_by_side
from flsplit.network.flops import count
from flsplit.report.style import figure, plain_log
from flsplit.split.model import build, cut
from flsplit.split.stages import Stages
from flsplit.split.tuning.interface import build as tuning

SCALE, TARGET = "time-cpu", 0.35
PROFILES = ("lora", "lte", "wifi", "5g")
METHODS = (("base", None), ("adc", 0.2), ("adc", 0.1), ("topk", 0.1))
BANDWIDTHS = tuple(np.geomspace(0.1, 10_000, 51))  # Mbit/s, each way
ONE = "one client"
TEN = {  # how rounds of ten clients end: strategy, and what else is set; clients' rounds are as many in each
    "synchronous": ("splitfed_v1", ()),
    "deadline": ("splitfed_v1", ("network.on_deadline=partial",)),
    "fedbuff": ("fedbuff", ("strategy.buffer=5", "eval_every=2")),
}
LORA = ("model.tune=lora", "model.tune_server=lora")
LONGER = {"adc": 2}  # times the rounds of `base`, to get as far
UNLIKE = "network.flops=[2.5e9,4e10]"  # of ten clients; 16 times between the slowest device and the fastest
DEADLINES = {"lte": 20, "wifi": 8}  # seconds of a round: what six or seven of the ten keep without compression
_WAITED_FOR = {  # where the network does not change what is learned: devices, for tables, and the task, for figures
    ONE: ("10", "CIFAR-100, 96 px, 2,500 images (reduced)"),
    "synchronous": ("2.5 to 40", "its superclasses, 64 px, 2,560 images, LoRA"),
}
_OF_TEN = (("base", None), ("adc", 0.2))
_SPLIT_POINT = 3


def points(seeds: Sequence[int] = SEEDS, options: Sequence[str] = ()) -> list[Point]:
    """The runs of ten clients, `base` and ADC: synchronous ones over the first network alone, which stand for all.

    Those of one client are the paper's.

    Args:
        seeds: of the runs.
        options: overrides for every run.
    """
    first, *_ = DEADLINES
    found = []
    for seed, profile, (mode, (strategy, keys)), method in product(seeds, DEADLINES, TEN.items(), _OF_TEN):
        if mode in _WAITED_FOR and profile != first:
            continue
        late = (f"network.round_deadline_s={DEADLINES[profile]}",) if mode == "deadline" else ()
        rounds = _point(method, seed, SCALE, ()).rounds() * LONGER.get(method[0], 1) * (2 if mode == "fedbuff" else 1)
        ways = (f"network={profile}", UNLIKE, *LORA, f"rounds={rounds:g}", *keys, *late, *options)
        found.append(replace(_point(method, seed, SCALE, ways), clients=10, strategy=strategy))
    return found


def gather(wanted: Sequence[Point], results: Results, paper: Results | None = None) -> pd.DataFrame:
    """A row for each run and network: seconds and joules until the accuracy was `TARGET`; NaN if it never was.

    Args:
        wanted: runs of ten clients.
        results: their rows.
        paper: rows of one client, of the same seeds; None for the committed ones.

    Returns:
        columns `setting`, `network`, `bandwidth` (Mbit/s each way; NaN for a profile), `method`, `value`, `seed`,
        `point`, `seconds`, `joules`.
    """
    found: list[dict[str, object]] = []

    def add(setting: str, network: str, point: Point, curve: pd.DataFrame, bandwidth: float = float("nan")) -> None:
        seconds, joules = reached(curve)
        found.append({
            "setting": setting, "network": network, "bandwidth": bandwidth, "method": point.method,
            "value": point.value, "seed": point.seed, "point": point, "seconds": seconds, "joules": joules,
        })  # fmt: skip

    def add_all(point: Point, curve: pd.DataFrame) -> None:
        for profile in PROFILES:
            add(mode_of(point), profile, point, over(profile, point, curve))
        flops = _network(point, "lte").flops  # as with wifi and 5g
        for mbps in BANDWIDTHS:
            custom = NetworkConfig(name="custom", uplink_mbps=mbps, downlink_mbps=mbps, flops=flops)
            add(mode_of(point), "custom", point, timed(point, curve, custom), mbps)

    for seed, method in product(dict.fromkeys(point.seed for point in wanted), METHODS):
        point = _point(method, seed, "reduced", ())
        curve = _curve(paper or Results(PAPER), point)
        if curve is not None:
            add_all(point, curve)
    for point in wanted:
        curve = _curve(results, point)
        if curve is not None and _stands_for_all(point):
            add_all(point, curve)
        elif curve is not None:
            add(mode_of(point), point.options[0].partition("=")[2], point, curve)
    return pd.DataFrame(found)


def table(rows: pd.DataFrame) -> str:
    """Hours and kilojoules of every setting, network and method, means over seeds; then the bandwidths that decide.

    A method of which one seed never gets there never does, and is compared with `base` over the seeds that both have.
    """
    lines = [f"{'clients':12} {'network':7} {'method':10} {'hours':>9} {'kJ':>9} {'seeds':>5}"]
    profiles = rows[rows.bandwidth.isna()]
    for keys, own in profiles.groupby(["setting", "network", "method", "value"], dropna=False, sort=False):
        setting, profile, method, value = keys
        never = own.seconds.isna().any()
        said = f"{'never':>9} {'':>9}" if never else f"{own.seconds.mean() / 3600:9.3f} {own.joules.mean() / 1e3:9.2f}"
        lines.append(f"{setting:12} {profile:7} {name(method, value):10} {said} {len(own):5}")
    lines.append(f"until the test accuracy is {TARGET:.0%}")
    for setting, (devices, _) in _WAITED_FOR.items():
        hours = _hours_by_bandwidth(rows, setting)
        for method, own in hours.items():
            seeds = own.columns.intersection(hours["base"].columns) if "base" in hours else []
            if method != "base" and len(seeds):
                faster = own.index[own[seeds].mean(axis=1) < hours["base"][seeds].mean(axis=1)]
                ends = f"up to {faster.max():.3g} Mbit/s" if len(faster) else "at no bandwidth"
                lines.append(
                    f"{setting}, {devices} GFLOP/s: {method} is there before base {ends} (each way; seeds "
                    f"{', '.join(map(str, seeds))})."
                )
    return "\n".join(lines)


def draw(rows: pd.DataFrame, results: Results, folder: Path, options: Sequence[str] = ()) -> list[Path]:
    """Hours to `TARGET` over the bandwidth, of one client and of ten; accuracy of ten over minutes.

    Hours are means over seeds; a method of which one never gets there has no line.

    Args:
        rows: from `gather`.
        results: curves of ten clients.
        folder: where the images go.
        options: what all rows have beside the study's own settings; part of the names.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    swept = {setting: _hours_by_bandwidth(rows, setting) for setting in _WAITED_FOR}
    swept = {setting: hours for setting, hours in swept.items() if hours}
    if swept:
        drawn.append(folder / f"{'-'.join(['time_to_accuracy', 'bandwidth', *options])}.png")
        with figure(5.5 * len(swept), 4.2) as drawing:
            panels = np.atleast_1d(drawing.subplots(1, len(swept)))
            for axes, (setting, hours) in zip(panels, swept.items()):
                _by_bandwidth(axes, setting, hours)
            panels[0].set_ylabel(f"hours to {TARGET:.0%}")
            drawing.savefig(drawn[-1], dpi=130)
    ten = rows[(rows.setting != ONE) & rows.bandwidth.isna()] if len(rows) else rows
    if not ten.empty:
        drawn.append(folder / f"{'-'.join(['time_to_accuracy', SCALE, *options])}.png")
        with figure(10, 4.6) as drawing:
            panels = drawing.subplots(1, len(DEADLINES), sharey=True)
            for axes, profile in zip(panels, DEADLINES):
                _over_minutes(axes, profile, ten[ten.network == profile], results)
            panels[0].set_ylabel("test accuracy, %")
            named = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels())}
            drawing.legend(named.values(), named, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
            seeds = ten.seed.nunique()
            drawing.suptitle(
                f"Ten clients of {_WAITED_FOR['synchronous'][0]} GFLOP/s, DeiT-T with LoRA, superclasses of CIFAR-100, "
                f"64 px, 2,560 images; {seeds} seed{'s' * (seeds > 1)}",
                fontsize=10,
            )
            drawing.savefig(drawn[-1], dpi=130)
    return drawn


def _by_bandwidth(axes: Axes, setting: str, hours: dict[str, pd.DataFrame]) -> None:
    for method in METHODS:
        own = hours.get(name(*method))
        if own is not None:
            label = f"{name(*method)}, {len(own.columns)} seed{'s' * (len(own.columns) > 1)}"
            axes.plot(own.index, own.mean(axis=1), color=STYLES[method].colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="bandwidth each way, Mbit/s")
    plain_log(axes.xaxis, at=(1.0,))
    plain_log(axes.yaxis)
    devices, task = _WAITED_FOR[setting]
    who = "One client" if setting == ONE else "Ten clients"
    axes.set_title(f"{who} of {devices} GFLOP/s, DeiT-T,\n{task}", fontsize=10)
    axes.legend(frameon=False, fontsize=9)


def _over_minutes(axes: Axes, profile: str, rows: pd.DataFrame, results: Results) -> None:
    for row in rows.itertuples():
        curve, style = results.curve(row.point), STYLES[(row.point.method, row.point.value)]
        assert curve is not None
        scored = over(profile, row.point, curve).dropna(subset="test_accuracy")
        axes.plot(
            scored.simulated_seconds / 60, 100 * scored.test_accuracy, color=style.colour,
            linestyle=dict(zip(TEN, ("-", "--", ":")))[row.setting],
            label=f"{name(row.point.method, row.point.value)}, {row.setting}",
        )  # fmt: skip
    axes.axhline(100 * TARGET, color="#8a919c", linewidth=0.8)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"simulated minutes over {profile}")


def over(profile: str, point: Point, curve: pd.DataFrame) -> pd.DataFrame:
    """The curve with its seconds and joules over a network: the run's own, unless it stands for all.

    Args:
        profile: a profile's name; that of the run, if it does not stand for all.
        point: what was run.
        curve: its rounds.
    """
    if not _stands_for_all(point):
        return curve
    return timed(point, curve, _network(point, profile))


def timed(point: Point, curve: pd.DataFrame, network: NetworkConfig) -> pd.DataFrame:
    """The curve of a run that waits for all, with its `simulated_seconds` and `joules` since the beginning.

    A lone client keeps its model; those of several come and go every round.

    Args:
        point: what was run.
        curve: its rounds; all steps are of whole batches, and every client takes as many.
        network: over which.
    """
    clock = Clock(network, lambda client: network.device(client, point.seed, {}), point.seed)
    work, size = work_of(replace(point, seed=0))
    moves = Moves(first=1) if point.clients == 1 else Moves(down=1, up=1)
    seconds, joules = [], []
    for number, samples in zip(curve["round"], curve.samples.diff().fillna(curve.samples).astype(int)):
        steps = [work] * (samples // (SCALES[point.scale].batch * point.clients))
        down, up = (bits(size, first=number == 1) for bits in (moves.down_bits, moves.up_bits))
        parts = [
            clock.timed(Round(client=client, steps=steps, down=down, up=up), number) for client in range(point.clients)
        ]
        seconds.append(side_by_side(parts)[0])
        joules.append(sum(part.spent.joules for part in parts))
    return curve.assign(simulated_seconds=np.cumsum(seconds), joules=np.cumsum(joules))


@cache
def work_of(point: Point) -> tuple[Work, ModelSize]:
    """What a step of a whole batch asks for, and the size of a client's model; the same for every seed."""
    scale, price = SCALES[point.scale], point.step()
    model = build(point.model, classes=point.shape().classes, image_size=scale.size, pretrained=False, seed=0)
    client, server = cut(model, _SPLIT_POINT)
    if set(LORA) <= set(point.options):
        for half in (client, server):
            tuning("lora").apply(half)
    made = point.compressor()
    client.with_scores = made.needs_scores
    flops = count(client, server, Stages(made), point.shape(), image_size=scale.size)
    work = Work(
        forward=flops.forward, backward=flops.backward, server=flops.server, up=price.uplink_bits,
        down=price.downlink_bits,
    )  # fmt: skip
    halves = [client, *([made.client_half] if made.client_half else [])]
    floats = [(values.numel(), values.requires_grad) for half in halves for values in half.parameters()]
    travels = sum(count for count, trained in floats if trained)
    return work, ModelSize(travels=travels, stays=sum(count for count, _ in floats) - travels)


def reached(curve: pd.DataFrame) -> tuple[float, float]:
    """Seconds and joules at which a curve is at `TARGET` for the first time; NaN if it never is."""
    scored = curve.dropna(subset="test_accuracy")
    there = np.flatnonzero(scored.test_accuracy >= TARGET)
    if not len(there):
        return float("nan"), float("nan")
    accuracy, last = scored.test_accuracy.to_numpy(), int(there[0])
    before = 0.0 if last == 0 else accuracy[last - 1]
    share = (TARGET - before) / (accuracy[last] - before)
    ends = []
    for column in ("simulated_seconds", "joules"):
        values = scored[column].to_numpy()
        start = 0.0 if last == 0 else values[last - 1]
        ends.append(float(start + share * (values[last] - start)))
    return ends[0], ends[1]


def mode_of(point: Point) -> str:
    """How a run of ten clients ends its rounds: a key of `TEN`; `ONE` for one client."""
    if point.clients == 1:
        return ONE
    if point.strategy == "fedbuff":
        return "fedbuff"
    return "deadline" if any(key.startswith("network.round_deadline_s") for key in point.options) else "synchronous"


def _stands_for_all(point: Point) -> bool:
    """Whether all were waited for in the study's own setting; what else is set may change what a step takes."""
    return point.clients == 1 or (mode_of(point) == "synchronous" and point in points((point.seed,)))


def _hours_by_bandwidth(rows: pd.DataFrame, setting: str) -> dict[str, pd.DataFrame]:
    """Hours in a setting for each method: a row for each bandwidth, a column for each seed; infinite for never."""
    swept = rows[rows.bandwidth.notna() & (rows.setting == setting)]
    swept = swept.assign(hours=swept.seconds.fillna(inf) / 3600)
    return {
        name(*method): own.pivot(index="bandwidth", columns="seed", values="hours")
        for method, own in swept.groupby(["method", "value"], dropna=False, sort=False)
    }


def _point(method: tuple[str, float | None], seed: int, scale: str, options: Sequence[str]) -> Point:
    return Point(
        scale=scale, dataset="cifar100", model="deit_tiny", method=method[0], value=method[1],
        rule="sqrt" if method[0] == "adc" else None, seed=seed, options=tuple(options),
    )  # fmt: skip


def _curve(results: Results, point: Point) -> pd.DataFrame | None:
    return None if results.row(point) is None else results.curve(point)


def _network(point: Point, profile: str) -> NetworkConfig:
    return _profile(profile, *([UNLIKE] if point.clients > 1 else []))


@cache
def _profile(network: str, *options: str) -> NetworkConfig:
    found = compose([f"network={network}", *options]).network_config
    assert found is not None
    return found
