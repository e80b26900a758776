"""Short names for runs: what they are, and what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The one parameter that a reader wants to see beside a group's name.
_MAIN = {
    "compressor": {
        **{"adc": "ratio", "bottlenet": "ratio", "c3sl": "group"},
        **{"topk": "rate", "randtopk": "rate", "splitfc": "rate"},
    },
    "partition": {
        "dirichlet": "alpha",
        "shards": "shards_per_client",
        "pathological": "classes_per_client",
        "quantity": "sigma",
        "column": "column",
    },
}
ASPECTS = ("dataset", "model", "compressor", "strategy", "partition", "clients", "seed")
_LABEL_ORDER = ("compressor", "strategy", "dataset", "model", "partition", "clients", "seed")
_NOT_SETTINGS = {"out", "resume", "logger", "hydra", "objective"}
_METHODS = ("compressor", "strategy", "partition")  # groups of methods, each with options of its own
_AGAIN = {"dataset.augment", "model.default_lr"}  # come as `augment` and `lr` too
# Keys that say nothing beside a data set's name as long as they are the same wherever it is.
_OF_DATASET = ("hub", "image_column", "label_column", "train_split", "test_split")
# Groups that a strategy leaves unused, whatever the configuration says.
_UNUSED = {"fedavg": {"compressor"}, "centralized": {"compressor", "clients", "partition"}}


def text(value: Any) -> str:
    """A setting's value as it is read; of a path, its end."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    said = alike(value)
    return Path(said).name if said.startswith(("/", "~", "./", "../")) else said


def alike(value: Any) -> str:
    """A setting's value as it is compared: a number is the same however it is typed, `1` or `1.0`."""
    return str(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name(group: Any) -> str:
    if isinstance(group, Mapping):
        return text(group.get("name", str(group.get("_target_", "?")).rpartition(".")[2]))
    return text(group)


def _main(config: Mapping[str, Any], aspect: str) -> str | None:
    return _MAIN.get(aspect, {}).get(_name(config.get(aspect)))


def describe(config: Mapping[str, Any], aspect: str, main: str | None = None) -> str:
    """One aspect of a run in a few words: ``adc ratio=0.1``, ``dirichlet alpha=0.3``; empty if unused.

    Args:
        config: of the run.
        aspect: a key of the configuration.
        main: the option to tell where the choice has none that is always told.
    """
    if aspect not in config or aspect in _UNUSED.get(_name(config.get("strategy")), ()):
        return ""
    group = config[aspect]
    name, main = _name(group), _main(config, aspect) or main
    if main is None or not isinstance(group, Mapping) or group.get(main) is None:
        return name
    return f"{name} {main}={text(group[main])}"


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted keys, as they are."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in _NOT_SETTINGS:
            continue
        if isinstance(value, Mapping):
            values |= settings(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def _consequences(configs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys that tell nothing apart which another one does not."""
    datasets = [config.get("dataset") for config in configs]
    found = set(_AGAIN)
    for key in _OF_DATASET:
        values = {(_name(each), alike(each.get(key)) if isinstance(each, Mapping) else "") for each in datasets}
        if len(values) == len({name for name, _ in values}):
            found.add(f"dataset.{key}")
    return found


def _told_by_aspects(key: str, config: Mapping[str, Any]) -> bool:
    group, _, rest = key.partition(".")
    return group in ASPECTS and rest in ("", "name", "_target_", _main(config, group))


def other_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Settings beyond `ASPECTS` that differ between runs: key -> value in each run ('' where absent, or told there).

    A setting that only some kinds of a group have (ADC's `rule`) counts only if those that have it differ.
    """
    flats = [
        {key: value for key, value in settings(config).items() if not _told_by_aspects(key, config)}
        for config in configs
    ]
    passed_over = _consequences(configs)
    keys = dict.fromkeys(key for flat in flats for key in flat if key not in passed_over)
    table = {key: [flat.get(key, "") for flat in flats] for key in keys}
    return {
        key: list(map(text, values))
        for key, values in table.items()
        if len({text(_plain(value)) for value in values} - {""}) > 1
    }


def _described(configs: Sequence[Mapping[str, Any]], aspect: str) -> list[str]:
    """`describe` of each; a method without a main option has the first that differs between its runs."""
    if aspect not in _METHODS:
        return [describe(config, aspect) for config in configs]
    names = [_name(config.get(aspect)) for config in configs]
    alike = {name: [config for config, each in zip(configs, names) if each == name] for name in names}
    first = {
        name: next((key for key in other_differences(runs) if key.startswith(f"{aspect}.")), "")
        for name, runs in alike.items()
    }
    return [describe(config, aspect, first[name].partition(".")[2]) for config, name in zip(configs, names)]


def varied(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Every setting that is not the same in all runs: key -> value in each run, as it is (None where absent).

    The name of a group is called as on the command line: `compressor`, not `compressor.name`.
    """
    flats, passed_over = [settings(config) for config in configs], _consequences(configs)
    keys = dict.fromkeys(key for flat in flats for key in flat if key not in passed_over)
    table = {key: [flat.get(key) for flat in flats] for key in keys}
    return {key.removesuffix(".name"): values for key, values in table.items() if len(set(map(alike, values))) > 1}


def short_labels(configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """A label for each run from what differs, e.g. ``adc ratio=0.1 · splitfed_v2``.

    Every differing aspect is named; another setting only if it separates runs that would otherwise read the
    same; the folder's name only where the configurations do not separate them. A lone run is called by its
    compressor and strategy.
    """
    if len(configs) == 1:
        words = [describe(configs[0], aspect) for aspect in ("compressor", "strategy")]
        return [" · ".join(word for word in words if word) or names[0]]
    pieces: list[list[str]] = [[] for _ in configs]
    for aspect in _LABEL_ORDER:
        told = _described(configs, aspect)
        if len(set(told)) > 1:
            for piece, word in zip(pieces, told, strict=True):
                number = {"clients": f"{word} client{'s' * (word != '1')}", "seed": f"seed {word}"}
                piece += [number.get(aspect, word)] if word else []
    for key, values in other_differences(configs).items():
        before = {tuple(piece) for piece in pieces}
        after = {(*piece, value) for piece, value in zip(pieces, values, strict=True)}
        if len(after) > len(before):
            for piece, value in zip(pieces, values, strict=True):
                piece += [f"{key.removesuffix('.name').rpartition('.')[2]}={value}"] if value else []
    labels = [" · ".join(piece) for piece in pieces]
    return [
        label if label and labels.count(label) == 1 else " · ".join(filter(None, (label, name)))
        for label, name in zip(labels, names, strict=True)
    ]


def folder_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents as are needed to tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names
