"""`resume=DIR`: start from that run's `config.yaml` and go on from its checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flsplit.config.schema import Config
from flsplit.errors import UserError, nearest_path, shown
from flsplit.record.tables import Recorder
from flsplit.server.checkpoint import Checkpoints, Damaged
from flsplit.server.origin import differences
from flsplit.typed import read

if TYPE_CHECKING:
    from flsplit.assembly import Assembly

# May be typed otherwise: more rounds go on, and where clients run changes no number.
_FREE = ("rounds", "objective", "engine", "engine.name", "engine.address", "engine.gpus_per_client", "engine.graphs")
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
    saved = saved_settings(folder, resume)
    for key in typed:
        if key in ("resume", "resume_force") or key in _FREE:
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
    if values.get("resume_force"):
        changed["resume_force"] = values["resume_force"]
    if "rounds" in typed:
        changed["rounds"] = values["rounds"]
    return {**saved, **changed}


def _engine(new: dict[str, Any], saved: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """The engine to go on with: the saved one but for what was typed, be it another engine or single keys of it."""
    if "engine" in typed:
        return {**new, **{key: saved[key] for key in _KEPT if key in saved}}
    return {**saved, **{key: value for key, value in new.items() if f"engine.{key}" in typed}}


def saved_settings(folder: Path, resume: str) -> dict[str, Any]:
    """What the `config.yaml` of a run says.

    Args:
        folder: of the run.
        resume: the folder as it was typed.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"resume must be the folder of a run (with a config.yaml), got {resume}{nearest_path(resume)}")
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


def check_checkpoint(folder: Path, config: Config, assembly: Assembly, origin: dict[str, Any]) -> list[str]:
    """Refuse a run whose files do not let it go on, or whose numbers would be those of another.

    Args:
        folder: of the run.
        config: of the run, as it goes on.
        assembly: of its configuration.
        origin: what its numbers depend on now; see `flsplit.server.origin`.

    Returns:
        what the user should know, a line each.

    Raises:
        UserError: naming the file, or what differs.
    """
    checkpoints = Checkpoints(folder / "checkpoint")
    try:
        state = checkpoints.load()
    except Damaged as error:
        raise _damaged(folder, str(error)) from error
    if state is None:
        return _anew(folder)
    notes = []
    if checkpoints.passed_over is not None:
        notes.append(
            f"{checkpoints.passed_over}; the run goes on from the checkpoint before it, of round {state.round}"
        )
    refused, warned = differences(state.origin, origin)
    if refused and not config.resume_force:
        raise UserError(
            f"resume={folder}: {'; '.join(refused)}; start anew, or go on all the same with resume.force=true"
        )
    notes += [f"resumed from round {state.round} by force: {line}" for line in refused]
    notes += [f"resumed from round {state.round}: {line}" for line in warned]
    own, saved = assembly.initial(), (state.client_model, state.server_model)
    if any(a.weights.numel() != b.weights.numel() for a, b in zip(own, saved)):
        raise _damaged(folder, "the models in checkpoint/ are not those of config.yaml")
    if config.rounds is not None and state.round > config.rounds:
        asked = f"rounds={config.rounds}: the run to resume has finished {state.round} already"
        raise UserError(f"{asked}; ask for more")
    return notes


def _anew(folder: Path) -> list[str]:
    """A run that has no checkpoint: it was stopped before there was one, or somebody has taken it away."""
    try:
        recorder = Recorder(folder)
        recorder.restore(sys.maxsize)
        rounds = len(recorder.rounds)
    except (OSError, ValueError, KeyError):
        rounds = 0
    if rounds > 1:  # tables are written first: killed in between, the first round is in them
        raise _damaged(folder, f"checkpoint/ is missing, and rounds.parquet has {rounds} rounds")
    return ["there is no checkpoint of the run; it starts over"]


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"resume={folder}: {what}; start anew in another folder")


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
