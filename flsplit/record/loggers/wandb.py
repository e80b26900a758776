"""Weights & Biases: a run of the project `flsplit` (or `WANDB_PROJECT`), its curves over rounds.

Jobs of a sweep that differ in their seed alone are a group (`Told.group`). Whatever W&B reads from the environment
holds, such as `WANDB_MODE=offline`; its files lie in the run's folder. A resumed run goes on in the same one there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, ClassVar

import pyarrow as pa

from flsplit.record.loggers.interface import Logger, Told, numbers

_LONGEST = 128  # characters of a name or a group


class WandbLogger(Logger):
    """See this module."""

    package: ClassVar = ("wandb", "wandb")
    takes_files: ClassVar[bool] = True

    def __init__(self, told: Told) -> None:
        super().__init__(told)
        self._run: Any = None

    def _begun(self) -> Any:
        if self._run is None:
            import wandb

            folder = self.told.folder / "wandb"
            known = {"id": token_hex(4), "name": short(self.told.name), "group": short(self.told.group or "")}
            known |= {key: (folder / key).read_text() for key in known if (folder / key).exists()}
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "flsplit"), id=known["id"], resume="allow",
                dir=self.told.folder, name=known["name"], group=known["group"] or None,
                config=dict(self.told.settings), settings=wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
            if (folder / "id").exists():
                self._run.summary["status"] = None  # that of an earlier end
            folder.mkdir(exist_ok=True)
            for key, value in known.items():  # a resumed run is no job of a sweep any more
                (folder / key).write_text(value)
            self._run.define_metric("*", step_metric="round")
        return self._run

    def log(self, rounds: pa.Table, new: int) -> None:
        """See `Logger`. W&B drops rounds that it has already."""
        for row in rounds.slice(len(rounds) - new).to_pylist():
            self._begun().log({"round": row["round"], **numbers(row)}, step=row["round"], commit=True)

    def finish(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """See `Logger`."""
        import wandb

        run = self._begun()
        run.summary.update({key: value for key, value in summary.items() if not isinstance(value, (dict, list))})
        artifact = wandb.Artifact(f"run-{run.id}", type="run")
        for file in files:
            artifact.add_file(str(file))
        run.log_artifact(artifact)
        run.finish(exit_code=int(summary["status"] == "failed"))
        self._run = None

    def close(self) -> None:
        """See `Logger`."""
        if self._run is not None:
            self._run.finish(exit_code=1)


def short(text: str) -> str:
    """A name that W&B takes: a long one is cut, and ends with what tells it from others that begin alike."""
    if len(text) <= _LONGEST:
        return text
    mark = f"... {hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return text[: _LONGEST - len(mark)] + mark
