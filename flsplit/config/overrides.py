"""What the user typed, `key=value` by `key=value`: read and refused here before Hydra composes anything.

Hydra accepts a few forms that make no sense for flsplit (a group taken away, chosen twice or put elsewhere) and its
own complaints fill paragraphs; both end up here as one line that names the key.
"""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from flsplit.errors import UserError, nearest, shown

# Whatever keys the chosen method takes: Hydra wants ++ for those it has not seen.
_OPEN = ("strategy.aggregator_args", "model.tune_args", "model.tune_server_args")
# Groups whose options are those of the method chosen: without one, the method's own default counts.
METHODS = ("compressor", "quantizer", "channel", "strategy", "partition")
_FORCE = re.compile(r"^resume\.force=")  # a key of its own, since `resume` is a folder
_SIGNS = {OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++"}
_REFUSED = {
    "hydra.mode": "write -m for a sweep, nothing for a single run",
    "hydra.job.chdir": "a run stays in the folder where flsplit was started; out=FOLDER says where its files go",
}


def groups() -> str:
    """The folder of our own groups: in the package where it is installed, beside it in a checkout.

    It is found by where this file lies, not by its name: many a folder that flsplit is started in has a `conf` too.
    """
    package = Path(__file__).parents[1]
    return str(next(f for f in (package / "conf", package.parent / "conf") if (f / "config.yaml").is_file()))


@contextmanager
def hydra() -> Iterator[ConfigLoader]:
    """Hydra with flsplit's own configuration, also inside another application of Hydra's; its loader."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(groups(), job_name="flsplit", version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = outer


def read(overrides: Sequence[str]) -> list[str]:
    """Check what was typed, key by key, and bring it into the form that Hydra takes; within `hydra`.

    Raises:
        UserError: for the first override that makes no sense.
    """
    overrides = [_FORCE.sub("resume_force=", override) for override in overrides]
    parser, groups = OverridesParser.create(), _groups(overrides)
    return [_checked(_parsed(parser, override), overrides, groups) for override in overrides]


def composable(overrides: Sequence[str]) -> list[str]:
    """The same outside `hydra`, for a configuration that is only shown: it composes, its values may be wrong.

    Raises:
        UserError: see `read`.
    """
    with hydra(), in_one_line(overrides):
        typed = read(overrides)
        hydra_compose("config", overrides=typed)
        return typed


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's view of overrides that `read` has passed; within `hydra`."""
    return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))


def keys(overrides: Sequence[str]) -> list[str]:
    """The keys that were typed, Hydra's own apart."""
    return [o.key_or_group for o in parse(overrides) if not o.key_or_group.startswith("hydra")]


def quoted(value: str) -> str:
    """Text as Hydra reads it whatever is in it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextmanager
def in_one_line(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turn complaints of Hydra and OmegaConf into a `UserError` of one line."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=")  # a searchpath that does not exist
            yield
    except (HydraException, OmegaConfBaseException, UserWarning) as error:
        raise UserError(_shorten(error, overrides)) from error


def _parsed(parser: OverridesParser, override: str) -> Override:
    key, equals, value = override.partition("=")
    try:
        parsed = parser.parse_override(override)
    except (OverrideParseException, HydraException) as error:
        if not equals:
            raise UserError(_no_pair(override)) from error
        if not re.fullmatch(r"[+~]*[\w/]+([.@:][\w/]+)*", key, re.ASCII):
            raise UserError(_unknown_key(key, ())) from error
        if value[:1] in ("'", '"') and value.count(value[0]) == 1:
            raise UserError(f"{key}: the quote that {value} begins with is not closed") from error
        raise UserError(
            f"{key}: Hydra reads this value only in quotes; in a shell: " + shlex.quote(f"{key}={quoted(value)}")
        ) from error
    if not parsed.key_or_group:
        raise UserError(_no_pair(override))
    return parsed


def _no_pair(word: str) -> str:
    better = f"; write {word}=VALUE" if re.fullmatch(r"[A-Za-z_][\w.]*", word, re.ASCII) else ""
    return f"{word!r} is not of the form key=value{better}"


def _checked(override: Override, overrides: Sequence[str], groups: Sequence[str]) -> str:
    key, text = override.key_or_group, str(override.input_line)
    if key in _REFUSED:
        raise UserError(f"{key}: {_REFUSED[key]}")
    if override.is_hydra_override():
        return text
    if override.type is OverrideType.DEL:
        group, _, option = key.partition(".")
        if group not in METHODS or option in ("", "name"):
            raise UserError(f"~{key}: only an option of a method can be taken away; give {key} another value")
        return text
    sign, value = _SIGNS.get(override.type, ""), text.partition("=")[2]
    if override.package is not None:
        raise UserError(f"{key}@{override.package}: a key cannot be put elsewhere; write {key}={value}")
    if key in groups:
        if sign:
            raise UserError(f"{sign}{key}: {key} is chosen already; write {key}={value}")
        if [o.partition("=")[0] for o in overrides].count(key) > 1:
            raise UserError(f"{key} is given more than once; choose one")
        _check_choice(override, _choices(key, overrides))
    elif any(key == group or key.startswith(f"{group}.") for group in _OPEN):
        return f"++{key}={value}"
    return text


def _groups(overrides: Sequence[str]) -> list[str]:
    """The groups that there are, in folders of the user's own too."""
    return _options("", overrides, ObjectType.GROUP)


def _choices(group: str, overrides: Sequence[str]) -> list[str]:
    """What can be chosen for a group, in folders of the user's own too."""
    return _options(group, overrides, ObjectType.CONFIG)


def _options(path: str, overrides: Sequence[str], kind: ObjectType) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    own = [override for override in overrides if override.startswith("hydra.searchpath=")]
    if own:  # where these lead Hydra finds out with all of its configuration, which takes longer
        return sorted(loader.get_group_options(path, kind, overrides=own))
    sources = [source for source in loader.get_sources() if source.is_group(path)]
    return sorted({name for source in sources for name in source.list(path, kind)})


def _check_choice(override: Override, choices: Sequence[str]) -> None:
    group = override.key_or_group
    if override.is_sweep_override():
        return  # each of its values is checked in its own job
    value: Any = override.value()
    if group == "experiment" and isinstance(value, list) and set(value) <= set(choices):
        return  # several recipes, the last one counting where they differ
    choice = str(value) if isinstance(value, str) else shown(value)
    if choice in choices:
        return
    if not choices:
        raise UserError(f"{group}={choice}: there is none to choose; leave it out")
    hint = nearest(choice, choices)
    if "." in choice and group in ("compressor", "strategy", "partition"):
        hint = (
            f"; for a module of your own write FOLDER/{group}/NAME.yaml with the line name: {choice}, and type "
            f"--config-dir FOLDER {group}=NAME"
        )
    raise UserError(f"{group} must be one of {', '.join(choices)}, got {choice!r}{hint}")


def _shorten(error: Exception, overrides: Sequence[str]) -> str:
    text = str(error).strip()
    if found := re.search(r"Could not (?:override|find) '([^'/]+)'", text):
        return _unknown_key(found[1], overrides)
    if found := re.search(r"Override ([^\s=]+)=.* looks like a config group override", text):
        return _unknown_key(found[1], overrides)
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"+{found[1]}: there is such a key already; write {found[1]}=VALUE"
    if found := re.search(r"Could not find 'hydra/(launcher|sweeper)/([^'/]*)'", text):
        extra = "--no-deps hydra-ray-launcher" if found[2].startswith("ray") else '"flsplit[sweeps]"'
        return f"hydra/{found[1]}={found[2]} needs a package that is not here: pip install {extra}"
    if re.search(r"BasicSweeper does not support sweep type", text):
        return "-m: an interval needs a sweeper that chooses values from it, such as experiment=optuna"
    if found := re.search(r"Could not find '([^']+)/([^'/]*)'", text):
        return f"{found[1]}: there is no {found[2]!r} to choose"
    if found := re.search(r"Ambiguous value for argument '([^'=]+)=", text):
        return (
            f"{found[1]}: several values need -m (one run each); a list is written '{found[1]}=[A,B]', "
            "and a value with a comma is quoted"
        )
    if found := re.search(r"Cannot merge DictConfig.*full_key: ([\w.]+)", text + str(error.__cause__), re.DOTALL):
        return f"{found[1]} is a group of keys; write {found[1]}.KEY=VALUE"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if cause is not None:
        text = str(cause)
    first = " ".join(text.split("\n")[0].split())
    key = cause.full_key if isinstance(cause, OmegaConfBaseException) else None
    return f"{key}: {first}" if key and key not in first else first


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    """Name the nearest key: of the same group, as it was chosen, if the group is right; else of all."""
    groups = _groups(overrides)
    chosen = [o for o in overrides if o.startswith("hydra.") or o.partition("=")[0] in groups]
    try:
        config = hydra_compose("config", overrides=chosen)
    except (HydraException, OmegaConfBaseException):
        config = hydra_compose("config")
    values: Any = OmegaConf.to_container(config, resolve=False)
    group, _, last = key.rpartition(".")
    within = values.get(group)
    if not isinstance(within, dict):
        known = [*values, *(f"{name}.{inner}" for name, of in values.items() if isinstance(of, dict) for inner in of)]
        return f"unknown key {key}{nearest(key, known) or '; flsplit --help shows all'}"
    names = [name for name in within if name != "name"]
    hint = nearest(last, names).replace("mean ", f"mean {group}.")
    if "." in str(within.get("name", "")):
        hint = hint or f"; what its YAML file does not name takes a plus: +{key}=VALUE"
    elif group in groups and (others := _having(last, group, overrides)):
        hint = f"; {group}={others}"
    of = f"{group}={within['name']}" if "name" in within else group
    return f"unknown key {key}{hint} ({of} has {', '.join(names) or 'no options'})"


def _having(option: str, group: str, overrides: Sequence[str]) -> str:
    """The choices of ours that have an option, in a few words; nothing if none has it."""
    files = {choice: Path(groups()) / group / f"{choice}.yaml" for choice in _choices(group, overrides)}
    found = [choice for choice, file in files.items() if file.is_file() and option in OmegaConf.load(file)]
    if len(found) < 2:
        return f"{found[0]} has it" if found else ""
    last = "others" if len(found) > 3 else found.pop()
    return f"{', '.join(found[:2])} and {last} have it"
