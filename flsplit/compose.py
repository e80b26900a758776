"""From `key=value` to a checked `Config`: Hydra composes, its complaints are put in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from flsplit.config import Config, read_config
from flsplit.errors import UserError
from flsplit.typed import nearest

_FREE = ("rounds", "engine", "out", "resume")  # what may be typed otherwise when a run is resumed


def compose(overrides: Sequence[str]) -> Config:
    """Compose and check a configuration.

    Args:
        overrides: as on the command line, such as `["clients=4", "compressor=topk"]`.

    Raises:
        UserError: one line that names the key, what is wrong and what would be right.
    """
    with _hydra(), in_one_line(overrides):
        values = plain(hydra_compose("config", overrides=list(overrides)))
    return resolve(values, overrides)


def check_sweep(overrides: Sequence[str]) -> None:
    """Check every job of a sweep before the first one starts.

    Raises:
        UserError: see `compose`.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for jobs in BasicSweeper.split_arguments(parsed, max_batch_size=None):
        for job in jobs:
            compose(job)


def resolve(values: dict[str, Any], overrides: Sequence[str]) -> Config:
    """Check composed values; with `resume`, start from that run's configuration instead.

    Raises:
        UserError: see `compose`.
    """
    if values.get("resume") is not None:
        values = _resumed(values, overrides)
    return read_config(values)


def plain(config: DictConfig) -> dict[str, Any]:
    """Hydra's configuration as plain values, interpolations resolved."""
    with in_one_line(()):
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    values.pop("hydra", None)
    return {str(key): value for key, value in values.items()}


@contextmanager
def in_one_line(overrides: Sequence[str]) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's complaints into a `UserError` of one line."""
    try:
        yield
    except OverrideParseException as error:
        raise UserError(_unparsed(error.override)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_shorten(error, overrides)) from error


@contextmanager
def _hydra() -> Iterator[None]:
    if GlobalHydra.instance().is_initialized():  # inside an application of Hydra's: its search path stays
        yield
        return
    with initialize_config_module("conf", version_base="1.3"):
        yield


def _unparsed(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r} is not of the form key=value"
    return (
        f"{key}: the characters ()[]{{}},:=\\ and spaces in a value must be quoted for Hydra; "
        f"in a shell: '{key}=\"{value}\"'"
    )


def _shorten(error: Exception, overrides: Sequence[str]) -> str:
    text = str(error).strip()
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1])
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        return _unknown_choice(found[1], found[2])
    if found := re.search(r"Could not override '?([^\s'.]+)'?\. No match in the defaults list", text):
        return _unknown_key(found[1])
    if found := re.search(r"Ambiguous value for argument '([^'=]+)=", text):
        return f"{found[1]}: several values need -m (one run each); a value with a comma must be quoted"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        text = str(error.__cause__)
    return " ".join(text.split("\n")[0].split())


def _unknown_key(key: str) -> str:
    """Name the nearest key: of the same group if the group is right, else of all."""
    with _hydra():
        config = hydra_compose("config")
    values = plain_keys(config)
    group, _, last = key.rpartition(".")
    siblings = _lookup(values, group) if group else None
    if not isinstance(siblings, dict):
        return f"unknown key {key}{nearest(key, _keys(values))}"
    hint = nearest(last, siblings)
    if group in ("compressor", "strategy", "partition"):
        hint += f" (the keys of {group} depend on which one is chosen)"
    return f"unknown key {key}{hint}"


def plain_keys(config: DictConfig) -> dict[str, Any]:
    """All keys with whatever values, resolved or not."""
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key != "hydra"}


def _keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def _unknown_choice(group: str, choice: str) -> str:
    choices = sorted(GlobalHydra.instance().config_loader().get_group_options(group)) if _loaded() else _files(group)
    return f"{group} must be one of {', '.join(choices)}, got {choice!r}{nearest(choice, choices)}"


def _loaded() -> bool:
    return GlobalHydra.instance().is_initialized()


def _files(group: str) -> list[str]:
    import conf

    return sorted(path.stem for folder in conf.__path__ for path in (Path(folder) / group).glob("*.yaml"))


def _resumed(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run to resume; what is typed beside `resume` must agree with it.

    `rounds` and `engine` may differ: more rounds continue a finished run, and the engine changes no number.
    """
    folder = Path(values["resume"])
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"resume must be the folder of a run (with a config.yaml), got {values['resume']}")
    saved = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(saved, dict)
    for key in _typed(overrides):
        new, old = _lookup(values, key), _lookup(saved, key)
        if isinstance(new, dict):  # a group's choice: compare which one it is
            new, old = new.get("name"), (old or {}).get("name") if isinstance(old, dict) else old
        if key.partition(".")[0] in _FREE:
            continue
        if new != old:
            raise UserError(f"{key}={new} differs from the run to resume, which has {key}={old}; leave it out")
    typed = {key.partition(".")[0] for key in _typed(overrides)}
    for key in ("rounds", "engine"):
        if key in typed:
            saved[key] = values[key]
    return {**saved, "out": str(folder), "resume": str(folder)}


def _typed(overrides: Iterable[str]) -> list[str]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [o.key_or_group.replace("/", ".") for o in parsed if o.key_or_group.partition(".")[0] != "hydra"]


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
