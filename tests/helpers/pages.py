"""Runs what a page shows: its files, commands and Python, from top to bottom, in one process and one folder.

A command runs as it is typed but for its size: data and models that must be fetched give way to the digits and
`vit_micro`, clients and rounds are few, and all run in this process. As it is typed it is composed and checked, too, as
on a machine with a GPU from which the Hub and a cluster can be reached. Not run, but held to what its program takes:

- `ray start`, `ray stop`: they start a cluster on this machine (`tests/engine/test_cluster.py` runs on one).
- `make TARGET`: each target is hours or installs; it must be in the Makefile.
- `pip install "flsplit[EXTRA]"`: the extra must be in `pyproject.toml`.
- rows of `experiments.paper` and `experiments.study` take hours: the same command runs with `--list`. What compares or
  draws runs as it is.
- `experiments.bench` takes minutes a case and a machine of its own: its arguments are read, its cases are not timed;
  its two plots are drawn of made-up measurements.
- `flwr` starts Flower's own services: its words are read by its own program.
- `experiments.dropout` trains 24 runs (`tests/experiments/test_dropout.py` runs some): its arguments are read.
- job scripts (`#!/bin/bash`) run with stand-ins for what SLURM, Ray and flsplit would be there; what the stand-ins are
  called with is then held to the real ones.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from flsplit import cli
from flsplit.compose import compose, request
from flsplit.config.schema import Config
from flsplit.experiment import execute
from flsplit.report import cli as report_cli
from flsplit.report import plot_cli, watch_cli

ROOT = Path(__file__).parents[2]
SMALL = {"engine": "inline", "clients": 3, "rounds": 1, "batch_size": 10, "dataset.train_limit": 30,
         "dataset.test_limit": 20}  # fmt: skip
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(
    r"`((?:flsplit(?:-report|-plot|-watch)?|python\s+-m\s+experiments[.\w]*)(?:\s[^`]*)?"
    r"|(?:make|pip install|ray|flwr)\s[^`]*)`"
)
_OF_RUNS = {"flsplit-report": report_cli.main, "flsplit-plot": plot_cli.main, "flsplit-watch": watch_cli.main}
_FORM = re.compile(r"\b[A-Z]{3,}\b|\.\.\.")  # FOLDER, KEY=VALUE: the form of a command
_STAND_INS = {
    "sleep": "",
    "scontrol": 'printf "node1\\nnode2\\nnode3\\nnode4\\n"',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',  # what follows its options
    "ray": 'printf "ray %s\\n" "$*" >> called',
    "flsplit": 'printf "flsplit %s\\n" "$*" >> called',
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    kind: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that it shows, by the path in its first line."""
        found = re.match(r"# (mine/\S+)\n", self.text)
        return found[1] if found else None

    @property
    def script(self) -> bool:
        """Whether it is a job script."""
        return self.text.startswith("#!")


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(kind, text) for kind, text in _BLOCK.findall(page.read_text())]


def inline_commands(page: Path) -> list[str]:
    """Commands in running text, but for mere forms of one."""
    text = _BLOCK.sub("", page.read_text())
    found = [" ".join(command.split()) for command in _INLINE.findall(text)]
    return [command for command in found if not _FORM.search(command)]


@dataclass
class Reader:
    """Somebody who works through a page in a folder.

    Attributes:
        folder: the one at hand.
        whole: whether commands go through all of `flsplit.cli`, Hydra's own launch included, which takes as long as the
            run; else a run begins where its configuration has been composed and checked.
        runs: folders of runs that commands have left, in order.
    """

    folder: Path
    whole: bool = False
    runs: list[Path] = field(default_factory=list)
    _names: dict[str, object] = field(default_factory=dict)

    def work_through(self, page: Path) -> None:
        """Write, run and check everything that the page shows; the first thing that fails is an AssertionError."""
        shown = blocks(page)
        for block in shown:
            if block.file:
                file = self.folder / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
        told = None
        for block in shown:
            if block.kind == "python" and not block.file:
                told = self._python(block.text, page)
            elif block.kind == "text":
                assert told is not None and told.strip() == block.text.strip(), f"{page}: it prints\n{told}"
            elif block.kind == "bash" and block.script:
                self._job(block.text)
            elif block.kind == "bash":
                for command in _commands(block.text):
                    self.type(command)
            else:
                assert block.file or not block.kind, f"{page}: a block of {block.kind} is not run"

    def _python(self, text: str, page: Path) -> str:
        with redirect_stdout(io.StringIO()) as out:
            exec(compile(text, str(page), "exec"), self._names)
        return out.getvalue()

    def type(self, command: str, *, run: bool = True) -> None:
        """Run a command; with `run=False`, only check it."""
        words = shlex.split(re.sub(r"\$\w+", "1", command), comments=True)
        program, arguments = words[0], [name for word in words[1:] for name in self._expanded(word)]
        if program == "flsplit":
            self._flsplit(arguments, run=run)
        elif program in _OF_RUNS:
            assert not run or _OF_RUNS[program](arguments) == 0, command
        elif words[:2] == ["python", "-m"]:
            assert _experiments(words[2].removeprefix("experiments."), words[3:], self.folder, run=run) == 0, command
        else:
            _held(words)

    def _expanded(self, word: str) -> list[str]:
        names = sorted(str(path.relative_to(self.folder)) for path in self.folder.glob(word)) if "*" in word else []
        return names or [word]

    def _flsplit(self, arguments: list[str], *, run: bool) -> None:
        flags = cli._parse(arguments)
        if flags.help:
            assert cli.main(arguments) == 0
            return
        resumed = any(word.startswith("resume=") for word in arguments)
        if resumed and not run:
            return  # nothing is there
        with self._anywhere():
            jobs = request(flags.overrides, sweep=flags.multirun).jobs
        if not run:
            return
        if self.whole:
            out = f"run{len(self.runs)}"
            assert cli.main([*arguments, *(f"{key}={value}" for key, value in SMALL.items()), f"out={out}"]) == 0
            self.runs.append(self.folder / out)
            return
        for config in jobs:
            with mock.patch.object(sys, "path", [*sys.path, str(self.folder)]):  # as the command line has it
                done = execute(config if resumed else small(config, f"run{len(self.runs)}"), quiet=True)
            assert done.summary["status"] in ("completed", "budget")
            assert done.rounds.train_loss.notna().all()
            self.runs.append(done.path)

    @contextmanager
    def _anywhere(self) -> Iterator[None]:
        """Compose as if there were a GPU, the Hub and a cluster, and with modules of the folder at hand."""
        with (
            mock.patch.multiple("torch.cuda", is_available=lambda: True, device_count=lambda: 1),
            mock.patch("flsplit.data.sources.hub.check"),
            mock.patch("socket.create_connection"),
            mock.patch.object(sys, "path", [*sys.path, str(self.folder)]),
        ):
            yield
        forget_mine()  # the command itself has to find them

    def _job(self, script: str) -> None:
        """Run a job script twice, the second time over what a run has left."""
        for name, line in _STAND_INS.items():
            stand_in = self.folder / "bin" / name
            stand_in.parent.mkdir(exist_ok=True)
            stand_in.write_text(f"#!/bin/bash\n{line}\n")
            stand_in.chmod(0o755)
        (self.folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        (self.folder / ".venv" / "bin" / "activate").touch()
        options = dict(line.partition("=")[::2] for line in re.findall(r"^#SBATCH --(.*)$", script, re.MULTILINE))
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-4]",
            "SLURM_NNODES": options["nodes"], "SLURM_CPUS_PER_TASK": options.get("cpus-per-task", ""),
        }  # fmt: skip
        called = self.folder / "called"
        for again in (False, True):
            called.write_text("")
            done = subprocess.run(
                ["bash", "-eu", "-c", f"{script}\nwait"], cwd=self.folder, env=environment, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0 and not done.stderr, done.stderr
            lines = called.read_text().splitlines()
            [run] = [line for line in lines if line.startswith("flsplit ")]
            for line in lines:
                self.type(line, run=False)
            if again and "resume" in script:
                assert run.startswith("flsplit resume=")
                break
            [out] = re.findall(r" out=(\S+)", run)
            (self.folder / out).mkdir(parents=True, exist_ok=True)
            (self.folder / out / "config.yaml").touch()


def small(config: Config, out: str) -> Config:
    """A run of a second, in this process and on the CPU, of what needs no download."""
    from_here = demo()
    dataset, model, augment = config.dataset, config.model, config.augment
    if dataset.hub is not None:
        dataset, augment = from_here.dataset, from_here.augment
    if model.name in ("deit_tiny", "deit_small"):
        kept = ("tune", "tune_args", "tune_server", "tune_server_args")
        model = replace(from_here.model, **{key: getattr(model, key) for key in kept})
    clients = min(config.clients, 3)
    return replace(
        config, out=config.out or out, engine=replace(from_here.engine, stack=config.engine.stack), device="cpu",
        precision="fp32", dataset=replace(dataset, train_limit=30, test_limit=20), model=model, augment=augment,
        clients=clients, clients_per_round=None if config.clients_per_round is None else clients,
        rounds=config.rounds if config.rounds is not None and config.rounds <= 3 else 1, batch_size=10,
    )  # fmt: skip


@cache
def demo() -> Config:
    """What `flsplit engine=inline` runs."""
    return compose(["engine=inline"])


def _commands(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def _experiments(name: str, arguments: list[str], folder: Path, *, run: bool) -> int:
    """Run `python -m experiments.NAME`, as far as this module's first lines say."""
    from experiments import picture
    from experiments.bench import __main__ as bench
    from experiments.bench import endurance, scale_plot
    from experiments.dropout import __main__ as dropout
    from experiments.paper import __main__ as paper
    from experiments.study import __main__ as study

    if name in ("paper", "study"):
        main = paper.main if name == "paper" else study.main
        if run and {"compare", "rules", "--draw"} & set(arguments[:1] + arguments):
            shown = [] if "compare" in arguments or "--draw" in arguments else ["--list"]
            return main([*arguments, *shown, "--figures", str(folder)])
        return main([*arguments, "--list"])
    if name == "bench":
        cases = dict.fromkeys(bench.CASES, lambda pairs: [])
        with mock.patch.object(bench, "CASES", cases):
            return bench.main(arguments)
    if name == "bench.scale_plot":
        instant = SimpleNamespace(made=lambda: mock.MagicMock())
        with mock.patch.multiple(
            scale_plot, SMALL=instant, seconds_beyond=lambda *_, **__: 1.0, peak_megabytes=lambda *_, **__: 1.0
        ):
            return scale_plot.main([str(folder / arguments[0]), *arguments[1:]])
    if name == "bench.endurance":
        long = endurance.Long([500.0] * 3, [9.0] * 3, 60.0)
        with mock.patch.object(endurance, "follow", lambda keys: request(keys) and long):
            return endurance.main([str(folder / arguments[0]), *arguments[1:]])
    if name == "dropout":
        with mock.patch.object(dropout, "make") as make:
            code = dropout.main(arguments)
        assert make.called
        request(list(make.call_args.args[1]))
        return code
    assert name == "picture", f"python -m experiments.{name} is not run"
    return picture.main([*arguments, "--out", str(folder / "step.png")])


def _held(words: list[str]) -> None:
    """Hold a command that is not run to what its program takes."""
    if words[0] == "make":
        targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1:] and set(words[1:]) <= set(targets), words
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        [extra] = re.findall(r"^flsplit\[(\w+)\]$", words[2])
        assert extra in project["optional-dependencies"], words
    elif words[0] == "ray":
        from ray.scripts.scripts import cli as ray

        ray.commands[words[1]].make_context(words[1], words[2:])
    elif words[0] == "flwr":
        from flwr.cli.app import app
        from typer.main import get_command

        command, rest = get_command(app), words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(words[1], list(rest))
        for config in [word for word in rest if word.startswith("overrides=")]:
            request(shlex.split(tomllib.loads(config)["overrides"]))
    else:
        raise AssertionError(f"nobody knows how to run {' '.join(words)!r}")


def forget_mine() -> None:
    """Let modules of one page not be taken for those of another."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]
