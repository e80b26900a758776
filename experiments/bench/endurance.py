"""`endurance`: a thousand LoRA clients on Ray, fifty a round, a hundred rounds: does a long run grow?

Memory is the proportional set size of all processes, Ray's among them, seen at the end of each round. A hundred rounds
are an hour of simulated time over 0.09 Mbit/s. `python -m experiments.bench.endurance FILE` draws both over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.bench.case import Result
from experiments.bench.memory import family, proportional
from flsplit.record.run import read_run
from flsplit.report.style import Style, figure

CLIENTS, TAKING_PART, ROUNDS = 1000, 50, 100
KEYS = [
    f"clients={CLIENTS}", f"clients_per_round={TAKING_PART}", "local_steps=1", "batch_size=1", "engine=ray",
    "device=cpu", "model.tune=lora", "network=lte", "network.uplink_mbps=0.09", "network.downlink_mbps=0.09",
    "partition=iid", "eval_every=10",
]  # fmt: skip


@dataclass(frozen=True)
class Long:
    """What a long run has left.

    Attributes:
        megabytes: of all its processes at the end of each round (PSS), but for the last, when they may be gone.
        seconds: of each round.
        simulated: seconds of the whole run, as its clients would have taken.
    """

    megabytes: list[float]
    seconds: list[float]
    simulated: float

    def growth(self) -> float:
        """Percent that the last tenth of the rounds has in memory over the second."""
        tenth = max(1, len(self.megabytes) // 10)
        before = statistics.median(self.megabytes[tenth : 2 * tenth])
        return 100 * (statistics.median(self.megabytes[-tenth:]) / before - 1)

    def slowing(self) -> float:
        """Seconds of a round in the last tenth over those in the second."""
        tenth = max(1, len(self.seconds) // 10)
        return statistics.median(self.seconds[-tenth:]) / statistics.median(self.seconds[tenth : 2 * tenth])


def run(*, pairs: int) -> Iterator[Result]:
    """Growth of memory and of a round's time, each of one run, however many pairs are asked for."""
    found = follow([*KEYS, f"rounds={ROUNDS}"])
    note = (
        f"digits, vit_micro, LoRA clients, {TAKING_PART} of {CLIENTS} a round, {ROUNDS} rounds, "
        f"{found.simulated / 60:.0f} minutes simulated, one run"
    )
    numbers: tuple[tuple[str, float, float | None], ...] = (
        ("% that memory (PSS of all processes) grows from round 10 to 100", found.growth(), 5.0),
        ("seconds of a round at the end over those of round 10 to 20", found.slowing(), None),
    )
    for what, number, goal in numbers:
        yield Result(
            case="endurance", what=what, ratio=number, low=number, high=number, goal=goal, at_least=False,
            conditions=note,
        )  # fmt: skip


def follow(keys: Sequence[str]) -> Long:
    """Run an experiment in a process of its own, and look at its memory after each round."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        process = subprocess.Popen(
            [sys.executable, "-m", "flsplit.cli", *keys, f"out={out}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        megabytes = []
        for line in process.stderr:  # one for each round
            if line.startswith("round "):
                megabytes.append(sum(map(proportional, family(process.pid))) / 1e6)
        if process.wait() != 0:
            raise RuntimeError("the run has failed")
        rounds = read_run(out).rounds
    return Long(megabytes[:-1], rounds["seconds"].tolist(), float(rounds.simulated_seconds.iloc[-1]))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.endurance", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the image, such as endurance.png")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how many (default {ROUNDS})")
    chosen = parser.parse_args(argv)
    if not chosen.file.absolute().parent.is_dir():
        parser.error(f"there is no folder {chosen.file.absolute().parent}")
    if chosen.rounds < 3:  # the last has no memory; one to compare with another is needed
        parser.error(f"--rounds must be at least 3, got {chosen.rounds}")
    found = follow([*KEYS, f"rounds={chosen.rounds}"])
    print(f"memory grows by {found.growth():.2f}%, a round takes {found.slowing():.3f} times as long at the end")
    print(f"{found.simulated / 60:.1f} minutes simulated in {sum(found.seconds) / 60:.1f}")
    draw(found, chosen.file)
    return 0


def draw(found: Long, file: Path) -> None:
    """Memory and seconds over the rounds."""
    with figure(9, 3.4) as drawing:
        left, right = drawing.subplots(1, 2)
        style = Style.of(0)
        for axes, values, label in (
            (left, found.megabytes, "memory of all processes (PSS), MB"), (right, found.seconds, "seconds of a round"),
        ):  # fmt: skip
            axes.plot(range(1, len(values) + 1), values, color=style.colour, linewidth=1)
            smooth = pd.Series(values).rolling(9, center=True, min_periods=1).median()
            axes.set(xlabel="round", ylabel=label, ylim=(0, 1.3 * smooth.max()))
        drawing.savefig(file, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
