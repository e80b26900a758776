"""The folder of a run that has been begun before: whether it is the run that is asked for, and what code trained it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.results import commit
from flsplit.compose import compose
from flsplit.config.schema import Config
from flsplit.errors import RunFailed, UserError, shown
from flsplit.record import atomic
from flsplit.server.resume import saved_settings
from flsplit.typed import read

MACHINE = ("device", "engine", "compile", "client_timeout", "logger")  # keys that are no part of a row
_FREE = ("out", "resume", "resume_force", "experiment", "objective", *MACHINE)
_PATHS = ("dataset.path", "model.pretrained", "client_profile")


def is_begun(folder: Path) -> bool:
    """Whether a run is there, be it finished or not."""
    return any((folder / name).exists() for name in ("config.yaml", "summary.json"))


def check_same(folder: Path, keys: Sequence[str]) -> None:
    """Refuse a run that is there and has other settings than those asked for; those of `MACHINE` may differ.

    Args:
        folder: of the run.
        keys: what is asked for, as on flsplit's command line, without `out`.

    Raises:
        UserError: naming the folder, the first key that differs and both values, or that the file of
            `model.pretrained` is another now; or its `config.yaml` is missing or damaged, or what is asked for cannot
            be.
    """
    there, config = _settings(saved_settings(folder, str(folder))), compose(keys)
    wanted = _settings(OmegaConf.to_container(OmegaConf.create(config.to_yaml(folder))))
    for key in [*wanted, *(key for key in there if key not in wanted)]:
        old, new = there.get(key), wanted.get(key)
        if old != new:
            old, new = (value if isinstance(value, str) else shown(value) for value in (old, new))
            raise UserError(
                f"{folder} holds a run with {key}={old}, and asked for is {key}={new}; remove the folder, or choose "
                "another --runs"
            )
    weights, summary = config.model.pretrained, folder / "summary.json"
    if isinstance(weights, str) and Path(weights).is_file() and summary.exists():  # what goes on looks for itself
        trained_from = json.loads(summary.read_text()).get("weights")
        if trained_from not in (None, atomic.digest(Path(weights).read_bytes())):
            raise UserError(
                f"{folder} holds a run that started from other weights than {weights} has now; remove the folder, or "
                "choose another --runs"
            )


def note_commit(folder: Path) -> None:
    """Keep beside the folder of a run that code of this commit trains it, from the start or from here on."""
    earlier = trained_by(folder).split("+") if is_begun(folder) else []
    commits = dict.fromkeys([*earlier, commit()])
    folder.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(_note(folder), "+".join(commits).encode())


def trained_by(folder: Path) -> str:
    """The commit of the code that trained a run, several with `+` between them; `unknown` if nobody has kept it."""
    note = _note(folder)
    return note.read_text() if note.exists() else "unknown"


def passed_over(name: str, error: RunFailed) -> str:
    """Say that a run has diverged and has no row.

    Returns:
        its name.

    Raises:
        RunFailed: `error`, if it is another failure.
    """
    if not error.diverged:
        raise error
    print(f"{name} has diverged and gets no row: {error}", file=sys.stderr, flush=True)
    return name


def check_all_ended(diverged: Sequence[str], count: int) -> None:
    """Raises RunFailed if some of `count` runs have diverged, naming them."""
    if diverged:
        raise RunFailed(f"{len(diverged)} of {count} runs have diverged and have no row: {', '.join(diverged)}")


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.commit")


def _settings(values: Any) -> dict[str, Any]:
    """What a `config.yaml` says, defaults filled in, by dotted key; paths are whole."""
    named = dict(_flat(read(Config, values).as_dict()))
    return named | {key: str(Path(named[key]).resolve()) for key in _PATHS if isinstance(named.get(key), str)}


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if name in _FREE:
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
