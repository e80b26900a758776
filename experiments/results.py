"""`results.csv`: a row for each run that was really run, and its curve beside it."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from experiments.point import Point
from flsplit.errors import UserError
from flsplit.record.run import Run

HOME = Path(__file__).parent
_WORDS = (
    "experiment", "scale", "dataset", "model", "method", "parameter", "rule", "strategy", "partition", "precision",
    "device", "commit",
)  # fmt: skip
_KEY = [
    "scale", "dataset", "model", "method", "parameter", "rule", "clients", "strategy", "partition", "alpha", "seed",
    "precision",
]  # fmt: skip
COLUMNS = [
    "experiment", "scale", "dataset", "model", "method", "parameter", "rule", "clients", "strategy", "partition",
    "alpha", "seed", "precision", "xi_nominal", "xi_actual", "samples", "final_test_accuracy", "best_test_accuracy",
    "worst_client_accuracy", "uplink_bits", "downlink_bits", "sync_bits", "seconds", "device", "commit",
]  # fmt: skip

_MAY_BE_EMPTY = (
    "alpha", "worst_client_accuracy",  # no Dirichlet partition; nothing held back at clients
    "final_test_accuracy", "best_test_accuracy",  # the run diverged: in the end, at once
)  # fmt: skip


class Results:
    """The table of runs and the curves beside it.

    Args:
        folder: holds `results.csv` and `curves/`.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self._curves = folder / "results.csv", folder / "curves"
        self._stamp: tuple[int, int] | None = None  # of the file as it was read
        self._rows, self._at = pd.DataFrame(columns=COLUMNS), dict[tuple[str | float, ...], int]()

    def table(self) -> pd.DataFrame:
        """All rows, of all commits.

        Raises:
            UserError: if the file is no such table, has been cut off, or says what cannot be.
        """
        self._refresh()
        return self._rows.copy()

    def _refresh(self) -> None:
        """Read the file where it has changed."""
        found = self.path.stat() if self.path.exists() else None
        stamp = None if found is None else (found.st_mtime_ns, found.st_size)
        if stamp != self._stamp:
            rows = pd.DataFrame(columns=COLUMNS) if stamp is None else self._read()
            self._at = {_plain(values): at for at, values in enumerate(rows[_KEY].itertuples(index=False))}
            self._rows, self._stamp = rows, stamp

    def _read(self) -> pd.DataFrame:
        check_whole(self.path)
        try:
            with self.path.open(encoding="utf-8", newline="") as lines:
                names = next(csv.reader(lines), [])
            rows = pd.read_csv(self.path, dtype=dict.fromkeys(_WORDS, str)).fillna(dict.fromkeys(_WORDS, ""))
        except ValueError as error:  # no table, or not in UTF-8
            raise UserError(f"{self.path} is not a table of results: {' '.join(str(error).split())}") from None
        if several := [column for column in COLUMNS if names.count(column) > 1]:  # pandas takes the first
            raise UserError(f"{self.path} has several columns {several[0]}; give each a name of its own")
        self._check(rows)
        return rows

    def row(self, point: Point) -> pd.Series | None:
        """The row of a point; None if it has not been run."""
        self._refresh()
        at = self._at.get(_plain(point.key[column] for column in _KEY))
        return None if at is None else self._rows.iloc[at]

    def curve(self, point: Point) -> pd.DataFrame | None:
        """`round, samples, uplink_bits, downlink_bits, sync_bits, xi, train_loss, test_accuracy` of a point.

        With a network also `simulated_seconds` and `joules`.
        """
        path = self._curves / f"{point.slug}.csv"
        return pd.read_csv(path) if path.exists() else None

    def _check(self, rows: pd.DataFrame) -> None:
        """Raises UserError for what somebody has changed by hand so that it cannot be true."""
        missing = [column for column in COLUMNS if column not in rows]
        if missing:
            raise UserError(f"{self.path}: the column {missing[0]} is missing; the columns are {', '.join(COLUMNS)}")
        for column in set(COLUMNS) - set(_WORDS):
            numbers = pd.to_numeric(rows[column], errors="coerce")
            wrong = numbers.isna() & ~((column in _MAY_BE_EMPTY) & rows[column].isna())
            if "accuracy" in column:
                wrong |= numbers.notna() & ~numbers.between(0, 1)
            if wrong.any():
                at = wrong.idxmax()
                wanted = "a fraction between 0 and 1" if "accuracy" in column else "a number"
                raise UserError(f"{self.path}, line {at + 2}: {column} must be {wanted}, got {rows[column][at]}")
        for column in ("device", "commit"):
            if (empty := rows[column] == "").any():
                raise UserError(
                    f"{self.path}, line {empty.idxmax() + 2}: {column} is missing; the row has been cut off: complete "
                    "it, or remove it"
                )
        twice = rows[rows.duplicated(_KEY, keep=False)]
        if not twice.empty:
            first = twice[(twice[_KEY] == twice[_KEY].iloc[0]).where(twice[_KEY].notna(), True).all(axis=1)]
            lines = " and ".join(str(at + 2) for at in first.index[:2])
            raise UserError(f"{self.path}: lines {lines} are of the same run; remove one of them")

    def add(self, experiment: str, point: Point, run: Run, commit: str) -> None:
        """Append a finished run.

        Args:
            experiment: the figure or table that asked for it.
            point: what was run.
            run: what came out.
            commit: of the code that trained it.

        Raises:
            UserError: if the table has been changed so that no row can follow; see `table`.
        """
        self._refresh()
        summary, held = run.summary, run.clients.test_accuracy
        tuned = experiment == "fig3"  # whose one client is scored on what it holds back
        row = {
            "experiment": experiment, **point.key,
            "xi_nominal": point.xi_nominal(), "xi_actual": summary["xi"], "samples": summary["samples"],
            "final_test_accuracy": held.iloc[-1] if tuned else summary["final_test_accuracy"],
            "best_test_accuracy": held.max() if tuned else summary["best_test_accuracy"],
            "worst_client_accuracy": None if tuned else (summary.get("own_test_accuracy") or {}).get("worst_decile"),
            "uplink_bits": summary["uplink_bits"], "downlink_bits": summary["downlink_bits"],
            "sync_bits": summary["sync_bits"], "seconds": round(summary["seconds"], 1), "device": summary["device"],
            "commit": commit,
        }  # fmt: skip
        self._curves.mkdir(parents=True, exist_ok=True)
        columns = ["round", "samples", "uplink_bits", "downlink_bits", "sync_bits", "xi", "train_loss", "test_accuracy"]
        columns += [
            clock
            for clock in ("simulated_seconds", "joules")
            if clock in run.rounds and run.rounds[clock].notna().any()
        ]
        run.rounds[columns].round(6).to_csv(self._curves / f"{point.slug}.csv", index=False)
        pd.DataFrame([row], columns=COLUMNS).to_csv(
            self.path, mode="a", header=not self.path.exists(), index=False, float_format="%.6g"
        )


def _plain(values: Iterable[object]) -> tuple[str | float, ...]:
    """A row's key, or a point's: what is empty in one is None in the other."""
    return tuple(
        "" if value is None or value != value else value if isinstance(value, str) else float(value)  # type: ignore[arg-type]
        for value in values
    )


def check_whole(path: Path) -> None:
    """Refuse a table whose last line does not end, since the rest of it may be missing.

    Raises:
        UserError: naming the file and the line.
    """
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        line = content.count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: it does not end in a newline, so it may have been cut off: complete it, or remove it"
        )


def mean(accuracies: pd.Series) -> float:
    """The mean over seeds; NaN where one has diverged, for that of the others would be too high."""
    return float(accuracies.mean(skipna=False))


def told(accuracy: float, form: str) -> str:
    """An accuracy in a format such as `8.2f`, or that a run has diverged."""
    return f"{'diverged':>8}" if pd.isna(accuracy) else format(accuracy, form)


def commit() -> str:
    """The commit of this code, `-dirty` if code or configuration has changed since; `unknown` if git knows of none."""
    found = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--", ":/*.py", ":/*.yaml", ":/*.toml")
    return f"{found}-dirty" if found and changed else found or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(HOME), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # there is no git here, or it may not be run
        return ""
    return done.stdout.strip()
