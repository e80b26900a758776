"""MLflow: a run of the experiment `flsplit` (or `MLFLOW_EXPERIMENT_NAME`) at `MLFLOW_TRACKING_URI`.

Jobs of a sweep that differ in their seed alone have the same tag `group` (`Told.group`). A resumed run goes on in the
same one there. Metrics are written aside, by MLflow's own thread: rounds do not wait for its disk or its server.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from flsplit.record.loggers.interface import Logger, Told, numbers

_METRICS, _PARAMS = 1000, 100  # what MLflow takes at a time
_LONGEST, _VALUE = 250, 500  # and of a name, and of a value
_OF_THE_END = "status", "xi"  # tags that do not hold for a run that goes on
_NOT_TAKEN = re.compile(r"[^\w. -]")  # in a name; a slash is, but not everywhere


class MlflowLogger(Logger):
    """See this module."""

    package: ClassVar = ("mlflow-skinny", "mlflow")
    takes_files: ClassVar[bool] = True

    def __init__(self, told: Told) -> None:
        super().__init__(told)
        self._client: Any = None
        self._run = ""
        self._last = 0  # round that MLflow has
        self._under_way: Any = None  # the batch that its thread writes; one at a time: rounds come in order

    def _begin(self) -> None:
        if self._client is not None:
            return
        from mlflow import MlflowClient
        from mlflow.entities import Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._client, kept = MlflowClient(), self.told.folder / "mlflow-run"
        if kept.exists():
            self._run = kept.read_text()
            self._last = max((m.step for m in self._client.get_metric_history(self._run, "samples")), default=0)
            self._client.set_terminated(self._run, "RUNNING")
            data = self._client.get_run(self._run).data
            for key in (key for key in _OF_THE_END if key in data.tags):
                self._client.delete_tag(self._run, key)
            before = data.params
            for key, value in self._settings().items():
                if before.get(key, value) != value:  # a parameter there is what it is
                    self._client.set_tag(self._run, key, value)
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "flsplit")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"group": self.told.group} if self.told.group else {}
        self._run = self._client.create_run(experiment, run_name=self.told.name, tags=tags).info.run_id
        kept.write_text(self._run)
        params = [Param(key, value) for key, value in self._settings().items()]
        for first in range(0, len(params), _PARAMS):
            self._client.log_batch(self._run, params=params[first : first + _PARAMS])

    def _settings(self) -> dict[str, str]:
        return {_name(key): str(value)[:_VALUE] for key, value in self.told.settings.items()}

    def log(self, rounds: pa.Table, new: int) -> None:
        """See `Logger`. Rounds that a resumed run goes through again are there already."""
        from mlflow.entities import Metric

        self._begin()
        now = int(time.time() * 1000)
        metrics = [
            Metric(_name(name), float(value), now, row["round"])
            for row in rounds.slice(len(rounds) - new).to_pylist()
            if row["round"] > self._last
            for name, value in numbers(row).items()
        ]
        for first in range(0, len(metrics), _METRICS):
            self._written()
            some = metrics[first : first + _METRICS]
            self._under_way = self._client.log_batch(self._run, metrics=some, synchronous=False)

    def _written(self) -> None:
        """Wait for what is under way; raises what its writing has raised."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.wait()

    def finish(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """See `Logger`."""
        self._begin()
        self._written()
        for key in ("device", *_OF_THE_END):
            self._client.set_tag(self._run, key, str(summary.get(key)))
        for file in files:
            self._client.log_artifact(self._run, str(file))
        self._client.set_terminated(self._run, "FAILED" if summary["status"] == "failed" else "FINISHED")
        self._client = None

    def close(self) -> None:
        """See `Logger`."""
        if self._client is not None:
            self._written()
            self._client.set_terminated(self._run, "FAILED")


def _name(text: str) -> str:
    """Of a column or key, with `_` for what MLflow does not take: `hit@5` is `hit_5`."""
    return _NOT_TAKEN.sub("_", text)[:_LONGEST]
