"""`resume=DIR`: start from that run's `config.yaml` and go on from its checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flsplit.config.schema import Config
from flsplit.errors import UserError
from flsplit.record.tables import Recorder
from flsplit.server.checkpoint import Checkpoints
from flsplit.typed import read, shown

if TYPE_CHECKING:
    from flsplit.assembly import Assembly

# May be typed otherwise: more rounds go on, and where clients run changes no number.
_FREE = ("rounds", "engine", "engine.name", "engine.address", "engine.gpus_per_client")
_KEPT = ("cpus_per_client", "stack")  # of `engine`: numbers depend on the threads, and on how many clients are stacked


def resumed(values: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """The configuration of the run to resume; what is typed beside `resume` must agree with it.

    Args:
        values: as composed from what was typed.
        typed: the keys that were typed.

    Raises:
        UserError: the folder is not that of a run, its configuration is damaged, or a key differs.
    """
    resume = values["resume"]
    if not isinstance(resume, str) or not resume.strip():
        raise UserError(f"resume must be the folder of a run, got {shown(resume)}")
    folder = Path(resume).expanduser()
    saved = _saved(folder, resume)
    for key in typed:
        if key == "resume" or key in _FREE:
            continue
        if key == "experiment":
            raise UserError("experiment: a resumed run has its settings already; leave it out")
        new, old = _lookup(values, key), str(folder) if key == "out" else _lookup(saved, key)
        if isinstance(new, dict) and isinstance(old, dict) and "name" in new:  # a group: which one was chosen
            new, old = new["name"], old.get("name")
        if key == "out" and isinstance(new, str) and Path(new).expanduser().resolve() == folder.resolve():
            continue
        if new != old:
            new, old = (value if isinstance(value, str) else shown(value) for value in (new, old))
            raise UserError(f"{key}={new} differs from the run to resume, which has {old}; leave it out")
    changed = {"out": str(folder), "resume": str(folder), "engine": _engine(values["engine"], saved["engine"], typed)}
    if "rounds" in typed:
        changed["rounds"] = values["rounds"]
    return {**saved, **changed}


def _engine(new: dict[str, Any], saved: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """The engine to go on with: the saved one but for what was typed, be it another engine or single keys of it."""
    if "engine" in typed:
        return {**new, **{key: saved[key] for key in _KEPT if key in saved}}
    return {**saved, **{key: value for key, value in new.items() if f"engine.{key}" in typed}}


def _saved(folder: Path, resume: str) -> dict[str, Any]:
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"resume must be the folder of a run (with a config.yaml), got {resume}")
    try:
        saved = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(saved, dict):
            raise UserError("it holds no keys")
        values = {str(key): value for key, value in saved.items()}
        read(Config, values)
    except yaml.YAMLError as error:
        raise UserError(f"resume={resume}: its config.yaml is not YAML") from error
    except (UserError, UnicodeError, OSError, OmegaConfBaseException) as error:
        raise UserError(f"resume={resume}: its config.yaml is damaged: {str(error).splitlines()[0]}") from error
    return values


def check_checkpoint(folder: Path, rounds: int | None, assembly: Assembly) -> None:
    """Refuse a run whose files do not let it go on.

    Args:
        folder: of the run.
        rounds: how many are asked for; None if a budget ends the run.
        assembly: of its configuration.

    Raises:
        UserError: naming the file.
    """
    checkpoints, recorder = Checkpoints(folder / "checkpoint"), Recorder(folder)
    try:
        state = checkpoints.load()
    except Exception as error:  # a damaged file can fail in any way
        raise _damaged(folder, f"checkpoint/ is damaged ({type(error).__name__})") from error
    finished = 0 if state is None else state.round
    try:
        if (
            state is not None or (folder / "rounds.parquet").exists()
        ):  # killed before the first round, a run may lack the tables
            recorder.restore(finished or sys.maxsize)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(folder, "rounds.parquet or clients.parquet is missing or damaged") from error
    ahead = len(recorder.rounds) - finished  # tables are written first: killed in between, the first round is ahead
    if not checkpoints.folder.is_dir() or ahead not in ((0, 1) if state is None else (0,)):
        raise _damaged(folder, "checkpoint/ and rounds.parquet do not go together")
    if state is None:
        return
    own, saved = assembly.initial(), (state.client_model, state.server_model)
    if any(a.weights.numel() != b.weights.numel() for a, b in zip(own, saved)):
        raise _damaged(folder, "the models in checkpoint/ are not those of config.yaml")
    for path in (path for files in state.kept.values() for path in files.values()):
        try:
            np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(folder, f"{path} is missing or damaged") from error
    if rounds is not None and state.round > rounds:
        raise UserError(f"rounds={rounds}: the run to resume has finished {state.round} already; ask for more")


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"resume={folder}: {what}; start anew in another folder")


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
