"""`flsplit --help`: groups, choices and keys, as their YAML files and the docstrings of what they choose tell them.

Nothing is imported for it: a meaning stands beside its key in the YAML file, or under `Args` in the module.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flsplit.config.overrides import groups
from flsplit.errors import UserError, nearest

WIDTH = 98
_ROOT = Path(__file__).parents[2]
_MODULES = {
    "compressor": _ROOT / "compressors", "strategy": _ROOT / "strategies",
    "partition": _ROOT / "flsplit" / "data" / "partitions",
}  # fmt: skip
_LINE = re.compile(r"( *)(\w+):(?: +([^#\s].*?))?(?: +# (.*))?$")
_HEAD = """\
flsplit simulates split and split-federated learning of Vision Transformers.

  flsplit [KEY=VALUE ...]        one run; without any, ten clients train on Ray for a minute
  flsplit -m [KEY=A,B ...]       a sweep: a run for every combination of values
  flsplit --help GROUP           a group's choices and options, as in: flsplit --help compressor
  flsplit --help KEY             what a key means, as in: flsplit --help budget; all of them: keys
  flsplit --cfg job [KEY=VALUE]  the configuration that would run
  flsplit --hydra-help           Hydra's own flags; flsplit -sc install=bash: completion in a shell
  flsplit resume=FOLDER          goes on with a run that was cut off
  flsplit-report, flsplit-plot, flsplit-watch   a page about runs, a figure, how far they are

Groups and what to choose from (GROUP=CHOICE; * by default):"""


@dataclass(frozen=True)
class Entry:
    """A key of a YAML file: its dotted name, its default as it is written, and what it means."""

    key: str
    default: str
    meaning: str

    @property
    def shown(self) -> str:
        """As it is typed."""
        return self.key if not self.default else f"{self.key}={'(needed)' if self.default == '???' else self.default}"


def text(asked: Sequence[str], own: Path | None = None) -> str:
    """What `flsplit --help` shows.

    Args:
        asked: groups, choices (`compressor=topk`), keys, or `keys` for all of these; nothing for an overview.
        own: a folder with groups of the user's.

    Raises:
        UserError: for a name that there is not.
    """
    folders = [Path(groups()), *([own] if own is not None else [])]
    keys = list(_entries(folders[0] / "config.yaml"))
    if not asked:
        return "\n".join([_HEAD, *_overview(folders, keys)])
    return "\n\n".join("\n".join(_about(name, folders, keys)) for name in asked)


def _overview(folders: Sequence[Path], keys: Sequence[Entry]) -> Iterator[str]:
    chosen = _chosen(folders[0])
    for group in _groups(folders):
        names = ", ".join(("*" if chosen.get(group) == name else "") + name for name in _choices(folders, group))
        yield from _row(group, names, 12)
    yield ""
    plain = [entry.shown for entry in keys if "." not in entry.key and entry.default]
    nested = dict.fromkeys(entry.key.partition(".")[0] for entry in keys if "." in entry.key)
    yield "Keys and their defaults (KEY=VALUE; of a choice, GROUP.KEY=VALUE):"
    for line in _wrapped("  ".join([*plain, *(f"{name}.KEY" for name in nested)]), WIDTH - 2):
        yield f"  {line}"


def _about(name: str, folders: Sequence[Path], keys: Sequence[Entry]) -> Iterator[str]:
    name = {"resume.force": "resume_force"}.get(name, name)  # as it is typed
    group, equals, choice = name.partition("=")
    known = _groups(folders)
    if name == "keys":
        yield from _table(keys)
    elif group in known:
        yield from _about_choice(group, choice, folders) if equals else _about_group(group, folders)
    elif group.partition(".")[0] in known:
        yield from _about_option(*group.partition(".")[::2], folders)
    elif found := [entry for entry in keys if entry.key == group or entry.key.startswith(f"{group}.")]:
        yield from _table(found)
    else:
        there = [*known, *(entry.key for entry in keys)]
        raise UserError(f"--help {name}: no group or key is called so{nearest(group, there) or '; flsplit --help'}")


def _about_group(group: str, folders: Sequence[Path]) -> Iterator[str]:
    chosen, choices = _chosen(folders[0]).get(group), _choices(folders, group)
    yield f"{group}=CHOICE"
    for name, file in choices.items():
        title = (_titles(group, file) or [""])[0]
        yield from _row(f"{name}{' *' if name == chosen else ''}", title, 2 + max(map(len, choices)))
    options = {name: _options(group, file) for name, file in choices.items()}
    first = next(iter(options.values()))
    shared = [e for e in first if len(options) > 1 and all(e in entries for entries in options.values())]
    if group == "experiment":  # they set keys of all groups
        options, shared = {}, []
    for name, entries in options.items():
        if rest := [entry for entry in entries if entry not in shared]:
            yield from ("", f"{group}={name}")
            yield from _table([Entry(f"{group}.{e.key}", e.default, e.meaning) for e in rest])
    if shared:
        yield from ("", f"{group}, whatever the choice")
        yield from _table([Entry(f"{group}.{e.key}", e.default, e.meaning) for e in shared])


def _about_choice(group: str, choice: str, folders: Sequence[Path]) -> Iterator[str]:
    choices = _choices(folders, group)
    if choice not in choices:
        raise UserError(
            f"--help {group}={choice}: {group} must be one of {', '.join(choices)}{nearest(choice, choices)}"
        )
    yield f"{group}={choice}"
    for line in _titles(group, choices[choice]):
        yield from (f"  {part}" for part in _wrapped(line, WIDTH - 2))
    entries = _options(group, choices[choice])
    if group == "experiment":  # it sets keys of all groups
        yield from _table(entries)
    else:
        yield from _table([Entry(f"{group}.{e.key}", e.default, e.meaning) for e in entries])


def _about_option(group: str, option: str, folders: Sequence[Path]) -> Iterator[str]:
    known: dict[str, None] = {}
    found = False
    for name, file in _choices(folders, group).items():
        entries = _options(group, file)
        known.update(dict.fromkeys(entry.key for entry in entries))
        if fitting := [Entry(f"{group}.{e.key}", e.default, e.meaning) for e in entries if e.key == option]:
            found = True
            yield f"{group}={name}"
            yield from _table(fitting)
    if not found:
        raise UserError(f"--help {group}.{option}: {group} has no such key{nearest(option, known)}")


def _groups(folders: Sequence[Path]) -> list[str]:
    """In the order of `config.yaml`."""
    there = {path.name for folder in folders for path in folder.iterdir() if path.is_dir() and any(path.glob("*.yaml"))}
    chosen = [group for group in _chosen(folders[0]) if group in there]
    return [*chosen, *sorted(there - set(chosen) - {"hydra"})]


def _chosen(folder: Path) -> dict[str, str]:
    return dict(re.findall(r"^  - (\w+): (\w+)$", (folder / "config.yaml").read_text(), re.MULTILINE))


def _choices(folders: Sequence[Path], group: str) -> dict[str, Path]:
    files = {path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}
    return dict(sorted(files.items()))


def _entries(path: Path) -> Iterator[Entry]:
    """Keys of a YAML file, those of groups within it by their dotted names; Hydra's own and `name` are left out."""
    above: list[str] = []
    for line in path.read_text().splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        indent, key, default, meaning = found.groups()
        above[len(indent) // 2 :] = [key]
        if above[0] not in ("hydra", "defaults", "name"):
            yield Entry(".".join(above), default or "", meaning or "")


def _options(group: str, path: Path) -> list[Entry]:
    """Options of a choice; what its YAML file does not say of one, its module does, or another choice's file."""
    said = _docstring_arguments(_module(group, path))
    for other in sorted(path.parent.glob("*.yaml")):
        for entry in _entries(other):
            if entry.meaning:
                said.setdefault(entry.key, entry.meaning)
    return [Entry(e.key, e.default, e.meaning or said.get(e.key, "")) for e in _entries(path)]


def _titles(group: str, path: Path) -> list[str]:
    """What a choice is: the comment above its keys, or the first line of its module."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            lines.append(line.removeprefix("#").removeprefix(" "))
    if not lines and (module := _module(group, path)) is not None:
        lines = (ast.get_docstring(ast.parse(module.read_text())) or "").splitlines()[:1]
    return lines


def _module(group: str, path: Path) -> Path | None:
    """The file of the class that a choice names: one of ours, or below the folder at hand."""
    found = re.search(r"^name: ([\w.]+)", path.read_text(), re.MULTILINE)
    if found is None:
        return None
    folder = Path.cwd() if "." in found[1] else _MODULES.get(group)
    module = None if folder is None else folder / f"{found[1].replace('.', '/')}.py"
    return module if module is not None and module.is_file() else None


def _docstring_arguments(module: Path | None) -> dict[str, str]:
    """What the docstrings of a module's classes say of each argument."""
    said: dict[str, str] = {}
    if module is None:
        return said
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ClassDef) and (found := re.search(
            r"^Args:\n((?:    .*\n?|\n)*)", ast.get_docstring(node) or "", re.MULTILINE
        )):  # fmt: skip
            for name, meaning in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", found[1], re.MULTILINE):
                said.setdefault(name, " ".join(meaning.split()).rstrip("."))
    return said


def _table(entries: Sequence[Entry]) -> Iterator[str]:
    width = min(36, max((len(entry.shown) for entry in entries), default=0))
    for entry in entries:
        if entry.default or entry.meaning:
            yield from _row(entry.shown, entry.meaning, width)


def _row(head: str, meaning: str, width: int) -> Iterator[str]:
    """`head` and its meaning beside it, on as many lines as it takes."""
    lines = _wrapped(meaning, WIDTH - width - 4) or [""]
    if len(head) > width:
        yield f"  {head}"
        head = ""
    for line in lines:
        yield f"  {head:<{width}}  {line}".rstrip()
        head = ""


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
