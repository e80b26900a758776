"""How to cite runs: what they were made with, and the command that repeats them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import OmegaConf

from flsplit.config.overrides import METHODS, hydra, quoted
from flsplit.config.overrides import groups as groups_folder
from flsplit.errors import UserError
from flsplit.report import labels
from flsplit.report.charts import link
from flsplit.report.groups import Group
from flsplit.report.runs import Run

TITLE, AUTHORS, YEAR = "flsplit", "The flsplit developers", 2026  # as in CITATION.cff
PAPER = (
    "Alvetreti, Pomponi, Di Lorenzo, Scardapane: <cite>Communication Efficient Split Learning of ViTs with "
    "Attention-based Double Compression</cite>, arXiv 2509.15058, 2025"
)
_GROUPS = ("dataset", "model", "compressor", "quantizer", "channel", "network", "strategy", "partition", "engine")
_PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/")


def section(groups: Sequence[Group]) -> str:
    """The block that closes the page."""
    runs = [run for group in groups for run in group.runs]
    one = len(runs) == 1
    versions = [_versions(run) for run in runs]
    bibtex = (
        f"@software{{flsplit,\n  title = {{{TITLE}}},\n  author = {{{{{AUTHORS}}}}},\n"
        f"  version = {{{', '.join(sorted({v.get('flsplit', '?') for v in versions}))}}},\n  year = {{{YEAR}}}\n}}"
    )
    seeds = sorted({run.config.get("seed") for run in runs}, key=str)
    devices = sorted({str(run.figure("device")) for run in runs if run.figure("device")})
    rows = {
        "made with": _told(versions),
        "device": escape(", ".join(devices)) or "unknown",
        f"seed{'s' * (len(seeds) != 1)}": escape(", ".join(map(str, seeds))),
        "configuration": " ".join(
            link(escape(name), f"config{'' if one else f'-{number}'}.yaml", "text/yaml", _yaml(run.config))
            for number, (run, name) in enumerate(zip(runs, _names(groups)))
        ),
    }  # fmt: skip
    told = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows.items())
    commands = "".join(f"<pre>{escape(command(group))}</pre>" for group in groups)
    own = {values["name"] for run in runs for group, values in _own(run.config).items() if group in METHODS}
    mine = "".join(f", and the module <code>{escape(module)}</code>," for module in sorted(own))
    return (
        f'<section class="cite"><h2>How to cite {"this run" if one else "these runs"}</h2>'
        f"<p>{AUTHORS}: {TITLE}, {YEAR}; and the paper whose method it reproduces: for ADC, {PAPER}.</p>"
        f"<pre>{escape(bibtex)}</pre><dl>{told}</dl>"
        f"<p>To repeat {'it' if one else 'them'}, from the folder that <code>dataset.path</code> and the like{mine} "
        f"are in:</p>{commands}</section>"
    )


def command(group: Group) -> str:
    """What repeats a group's runs, with every setting that is not flsplit's default."""
    config = group.runs[0].config
    seeds = ",".join(str(run.config.get("seed")) for run in group.runs)
    words = overrides({key: value for key, value in config.items() if key != "seed"})
    many = ["-m"] if len(group.runs) > 1 else []
    return shlex.join(["flsplit", *many, *words, *([f"seed={seeds}"] if many or seeds != "0" else [])])


def overrides(config: Mapping[str, Any]) -> list[str]:
    """`key=value` for each setting that is not the default of the groups chosen, and for all of the user's own ones."""
    chosen, own = [], _own(config)
    for group in _GROUPS:
        values = config.get(group)
        name = values.get("name") if isinstance(values, Mapping) else None
        if group in own:
            chosen.append(f"{group}={_nearest(group, own[group])[0]}")
        elif isinstance(name, str) and _is_built_in(group, name):
            chosen.append(f"{group}={name}")
        elif isinstance(name, str):
            chosen += ["model=timm", f"model.name={_shown(name)}"]
    defaults = _defaults(tuple(chosen))
    words = [word for word in chosen if word not in _defaults(())["chosen"]]
    for group, values in own.items():
        words += _in_place(group, values)
    for key, value in labels.settings(config).items():
        if key.partition(".")[0] in own:
            continue
        if key in defaults["settings"]:
            if value != defaults["settings"][key] and not (value in (None, []) and not defaults["settings"][key]):
                words.append(f"{key}={_shown(value)}")
        elif "_args." in key:  # those of a method's own; other keys that a group lacks have the default of the schema
            words.append(f"{key}={_shown(value)}")
    return words


def _own(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The groups whose choice is none of flsplit's, but a file of the user's; any model can be asked of timm."""
    named = {group: config[group] for group in _GROUPS if isinstance(config.get(group), Mapping) and group != "model"}
    return {
        group: values
        for group, values in named.items()
        if isinstance(values.get("name"), str) and not _is_built_in(group, values["name"])
    }


def _is_built_in(group: str, name: str) -> bool:
    return (Path(groups_folder()) / group / f"{name}.yaml").is_file()


def _nearest(group: str, values: Mapping[str, Any]) -> tuple[str, set[str]]:
    """The choice of flsplit's, with its keys, to make the user's own out of: as few as can be have to go, or stay."""
    files = sorted((Path(groups_folder()) / group).glob("*.yaml"))
    choices = [(file.stem, {str(key) for key in OmegaConf.load(file)}) for file in files]
    return min(choices, key=lambda choice: (len(choice[1] - values.keys()), len(choice[1])))


def _in_place(group: str, values: Mapping[str, Any]) -> list[str]:
    """What makes the user's own choice out of `_nearest`: keys that it has, that it lacks, that have to go."""
    _, keys = _nearest(group, values)
    told = [f"{'' if key in keys else '+'}{group}.{key}={_shown(value)}" for key, value in values.items()]
    return [*told, *(f"~{group}.{key}" for key in sorted(keys - values.keys()))]


@lru_cache(maxsize=64)
def _defaults(chosen: tuple[str, ...]) -> dict[str, Any]:
    """Settings as they are where only groups are chosen; and which groups those are."""
    try:
        with hydra():
            composed = OmegaConf.to_container(compose("config", overrides=list(chosen)), resolve=True)
    except Exception as error:
        raise UserError(f"flsplit's own configuration cannot be read: {error}") from error
    assert isinstance(composed, dict)
    named = {f"{group}={composed[group].get('name')}" for group in _GROUPS}
    return {"settings": labels.settings({str(key): value for key, value in composed.items()}), "chosen": named}


def _shown(value: Any) -> str:
    """A value as Hydra reads it; of a path, its name, since where it lies is nobody else's business."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_shown(each)}' for key, each in value.items())}}}"
    text = _place(value) if isinstance(value, str) else str(value)
    return text if text and set(text) <= _PLAIN else quoted(text)


def _place(text: str) -> str:
    return Path(text).name if text.startswith(("/", "~", "./", "../")) else text


def _yaml(config: Mapping[str, Any]) -> str:
    """Settings as `config.yaml` has them, without the folders of this machine."""

    def told(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: told(each) for key, each in value.items()}
        return _place(value) if isinstance(value, str) else value

    return OmegaConf.to_yaml(OmegaConf.create(told({key: value for key, value in config.items() if key != "out"})))


def _versions(run: Run) -> dict[str, str]:
    found = (run.summary or {}).get("versions")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, Mapping) else {}


def _told(versions: Sequence[Mapping[str, str]]) -> str:
    """Names with their versions, all that there are where runs differ."""
    names = dict.fromkeys(name for found in versions for name in found)
    told = [f"{name} {', '.join(sorted({found[name] for found in versions if name in found}))}" for name in names]
    return escape(" · ".join(told)) or "unknown, as no run has ended"


def _names(groups: Sequence[Group]) -> list[str]:
    """A name for each run's configuration."""
    if len(groups) == 1 and len(groups[0].runs) == 1:
        return ["config.yaml"]
    return [
        group.label if len(group.runs) == 1 else f"{group.label} · seed {run.config.get('seed')}"
        for group in groups
        for run in group.runs
    ]
