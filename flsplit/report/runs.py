"""Run folders: find them and read what a run left there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from flsplit.display.units import missing
from flsplit.errors import UserError, nearest_path

_BITS = ("uplink_bits", "downlink_bits", "sync_bits")
COLUMNS = {
    "rounds": (
        *("round", "samples", "train_loss", "test_loss", "test_accuracy", *_BITS),
        *("nominal_bits", "wire_bytes", "xi", "seconds"),
    ),
    "clients": ("round", "client", "samples", "train_loss", "test_accuracy", *_BITS, "failed"),
    "partition": ("client", "label", "count"),
}
_LEFT_BY_A_RUN = ("rounds.parquet", "clients.parquet", "partition.parquet", "summary.json")
ENDED = ("completed", "budget")  # status of a run that has come to the end that was asked for
_DEPTH = 4  # a Hydra sweep lies at multirun/DATE/TIME/JOB


class ReportError(UserError):
    """A mistake in what was asked of the report."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder as read.

    A table that the run had not written yet is empty, with its columns. There is no summary where a run has not ended,
    nor where it went on after that one was written.

    Attributes:
        evaluated: whether each of `rounds` was, be it to NaN, as a model that has diverged is; pandas does not tell.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any] | None
    rounds: pd.DataFrame
    evaluated: list[bool]
    clients: pd.DataFrame
    partition: pd.DataFrame

    @property
    def status(self) -> str:
        """The summary's status; `unfinished` for a run that was cut off or still goes on."""
        return str(self.summary.get("status", "unfinished")) if self.summary else "unfinished"

    @property
    def ended(self) -> bool:
        """Whether it has come to the end that was asked for."""
        return self.status in ENDED

    def figure(self, key: str) -> Any:
        """A number of the summary or, where there is none, what the rounds so far say; else None."""
        if self.summary is not None:
            return self.summary.get(key)
        if key in ("final_test_accuracy", "best_test_accuracy"):
            seen = self.rounds.loc[self.evaluated, "test_accuracy"].astype(float)
            found = seen.max() if key.startswith("best") or seen.empty else seen.iloc[-1]
            return None if missing(found) else float(found)
        if self.rounds.empty or key == "seconds":
            return None
        if key == "rounds":
            return int(self.rounds["round"].iloc[-1])
        return self.rounds[key].iloc[-1] if key in self.rounds else None


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run: its configuration and at least one thing that a run leaves."""
    return (folder / "config.yaml").is_file() and any((folder / name).is_file() for name in _LEFT_BY_A_RUN)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif depth:
        children = [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
        for child in ordered(children):
            yield from _below(child, depth - 1)


def ordered(folders: Iterable[Path]) -> list[Path]:
    """By name, 2 before 10, as Hydra numbers the jobs of a sweep."""
    return sorted(folders, key=lambda path: [(len(part) if part.isdigit() else 0, part) for part in path.parts])


def once(folders: Iterable[Path]) -> list[Path]:
    """Each folder once, by the first of its names: links and paths of other forms are names of the same."""
    found: dict[Path, Path] = {}
    for folder in folders:
        found.setdefault(folder.resolve(), folder)
    return list(found.values())


def runs_below(path: Path) -> list[Path]:
    """The run folders at `path` and below it, each once.

    Raises:
        ReportError: if a folder cannot be read.
    """
    try:
        return once(_below(path, _DEPTH))
    except OSError as error:
        raise ReportError(f"{error.filename}: cannot be read: {error.strerror}") from error


def check_folder(path: Path) -> None:
    """Refuse what is no folder.

    Raises:
        ReportError: naming it.
    """
    if not path.is_dir():
        raise ReportError(
            f"{path}: no such folder; give a run's folder or one that contains run folders{nearest_path(path)}"
        )


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders among `paths` and below them, each once, in the order given.

    Raises:
        ReportError: if a path is no folder, or has no run in it.
    """
    found: list[Path] = []
    for path in paths:
        check_folder(path)
        runs = runs_below(path)
        if not runs:
            raise ReportError(
                f"{path}: no run here; a run's folder has config.yaml and rounds.parquet (looked {_DEPTH} levels deep)"
            )
        found += [run.resolve() for run in runs]
    return once(found)


def _table(folder: Path, name: str) -> pa.Table:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        return pa.table({column: pa.array([], pa.float64()) for column in COLUMNS[name]})
    try:
        table = pq.read_table(path)
    except Exception as error:  # pyarrow has no common base for "not a Parquet file", "cut off", "no access"
        reason = " ".join(str(error).split())[:120]
        raise ReportError(f"{path}: not a readable Parquet file ({reason})") from error
    absent = [column for column in COLUMNS[name] if column not in table.column_names]
    if absent:
        raise ReportError(f"{path}: column {', '.join(absent)} missing; is this a table of flsplit?")
    return table


def _config(path: Path) -> dict[str, Any]:
    try:
        config = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:  # YAML and OmegaConf errors, bad encoding, no access
        reason = " ".join(str(error).split())[:120]
        raise ReportError(f"{path}: not a readable YAML file ({reason})") from error
    if not isinstance(config, dict):
        raise ReportError(f"{path}: not the configuration of a run; expected keys and values")
    return {str(key): value for key, value in config.items()}


def _summary(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(summary, dict):
        raise ReportError(f"{path}: not the summary of a run; expected a JSON object")
    return summary


def load_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        ReportError: if a file is there but cannot be read, or is not what a run writes.
    """
    config, summary = _config(folder / "config.yaml"), _summary(folder / "summary.json")
    rounds = _table(folder, "rounds")
    if summary is not None and summary.get("rounds", 0) < len(rounds):
        summary = None
    return Run(
        folder=folder,
        config=config,
        summary=summary,
        rounds=rounds.to_pandas(),
        evaluated=rounds["test_accuracy"].is_valid().to_pylist(),
        clients=_table(folder, "clients").to_pandas(),
        partition=_table(folder, "partition").to_pandas(),
    )
