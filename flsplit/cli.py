"""`flsplit [key=value ...]`: the command line, a Hydra application.

Everything that can refuse a configuration comes before Hydra starts a job, for every job of a sweep: Hydra makes its
folders first and asks afterwards.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from flsplit.errors import UNREAD, RunFailed, UserError, explained, is_unread

if TYPE_CHECKING:
    from flsplit.config.schema import Config

_REFUSED = ("config_name", "config_path", "experimental_rerun")  # they would replace flsplit's own configuration
_SHOW = ("help", "hydra_help", "cfg", "resolve", "info", "shell_completion")

Job = Callable[[DictConfig], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 1 for a run that failed or a fault of the program, 2 for a mistake of the user's, 130 when interrupted, 141
        when nobody reads the output any more.
    """
    command = _Command(alone=argv is None)
    try:
        command.run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        command.fail(f"interrupted{command.goes_on}", 130)
        if argv is None:  # a process of our own: not to wait for the server's thread, which would start Ray anew
            os._exit(command.code)
    except Exception as error:
        command.stopped_by(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        command.stopped_by(error)
    command.leave()
    return command.code


class _Command:
    """One call: what comes of it, and the folder of the run at hand.

    Args:
        alone: whether this process is there for nothing else.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self.code = 0
        self.folder: Path | None = None

    @property
    def begun(self) -> Path | None:
        """The folder of the run at hand, once it has been laid out."""
        return self.folder if self.folder is not None and (self.folder / "config.yaml").exists() else None

    @property
    def goes_on(self) -> str:
        """Ends a line about a run that has begun."""
        return "" if self.begun is None else f"; resume={self.begun} goes on from here"

    def fail(self, message: object, code: int) -> None:
        """Tell the user in one line."""
        print("flsplit:", " ".join(str(message).splitlines()), file=sys.stderr)
        self.code = max(self.code, code)

    def stopped_by(self, error: Exception, where: str = "") -> None:
        """Tell what has stopped a run: the user's mistake, something foreseen, or a fault, whose traceback is kept."""
        if is_unread(error):
            self.code = UNREAD
        elif isinstance(error, UserError):
            self.fail(f"{where}{error}", 2)
        elif isinstance(error, RunFailed):
            self.fail(f"{where}{error}{self.goes_on}", 1)
        else:
            self.fail(f"{where}{explained(error, self.begun)}{self.goes_on}", 1)

    def run(self, arguments: list[str]) -> None:
        """Show what is asked for, or check everything and then let Hydra run it.

        Raises:
            UserError: before anything is written.
        """
        flags = _parse(arguments)
        if flags.version:
            print("flsplit", _version())
        elif any(getattr(flags, name) for name in _SHOW):
            self._show(arguments, flags)
        else:
            self._start(flags.overrides, sweep=flags.multirun)

    def leave(self) -> None:
        """End what was begun for a run that was refused."""
        if self._alone and (engine := sys.modules.get("flsplit.engine")) is not None:
            engine.leave()

    def _show(self, arguments: list[str], flags: argparse.Namespace) -> None:
        from flsplit.config.overrides import composable, in_one_line

        typed = composable(flags.overrides) if flags.cfg or flags.help else flags.overrides
        complaint = io.StringIO()
        try:
            with in_one_line(), redirect_stderr(complaint):
                _launch([a for a in arguments if a not in flags.overrides] + typed, lambda cfg: None)
        except SystemExit as leave:
            if leave.code:
                raise UserError(complaint.getvalue().strip()) from leave
        except ValueError as error:
            raise UserError(str(error)) from error

    def _start(self, overrides: list[str], *, sweep: bool) -> None:
        from flsplit.compose import is_done, request
        from flsplit.config.overrides import in_one_line

        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # where users keep compressors and strategies of their own
        asked = request(overrides, sweep=sweep)
        if self._alone:
            from flsplit import engine

            engine.begin(asked.jobs[0])  # Ray starts while data and models are prepared
        from flsplit.experiment import execute, prepare

        done = {number for number, config in enumerate(asked.jobs) if sweep and is_done(config)}
        waiting = {
            number: replace(prepare(config, quiet=False), varied=varied)
            for number, (config, varied) in enumerate(zip(asked.jobs, _varied(asked.jobs)))
            if number not in done
        }

        def job(cfg: DictConfig) -> None:
            number = HydraConfig.get().job.num if sweep else 0
            if number in done:
                print(f"flsplit: {asked.jobs[number].out} is done already", file=sys.stderr)
                return
            ready = waiting.pop(number)  # composed and prepared: `cfg` is the same
            self.folder = ready.out
            try:
                execute(ready.plan.config, prepared=ready)
            except Exception as error:  # on its way through Hydra it would be printed as well, and end a sweep
                self.stopped_by(error, f"{ready.out}: " if sweep else "")

        try:
            with in_one_line():
                _launch(["-m"] * sweep + asked.overrides, job)
        except OSError as error:  # the job's own do not come this far
            raise UserError(f"hydra.{'sweep' if sweep else 'run'}.dir: a folder cannot be made: {error}") from error


def _varied(jobs: Sequence[Config]) -> list[dict[str, Any]]:
    """For each job of a sweep, the settings that others have otherwise."""
    from flsplit.report.labels import varied

    found = varied([job.as_dict() for job in jobs])
    return [{key: values[number] for key, values in found.items()} for number in range(len(jobs))]


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Hydra's flags, and what was typed beside them.

    Raises:
        UserError: an unknown flag, or one of Hydra's that flsplit has no use for.
    """

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; keys are given as key=value, flsplit --help shows them")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args([a for a in arguments if a != "--version"])
    flags.version = "--version" in arguments
    for name in _REFUSED:
        if getattr(flags, name) is not None:
            refuse(f"--{name.replace('_', '-')} does not go with flsplit")
    if flags.config_dir is not None:
        folder = Path(flags.config_dir).expanduser().absolute()
        if not folder.is_dir():
            raise UserError(f"--config-dir must be a folder of configuration groups, got {flags.config_dir}")
        flags.overrides.append('hydra.searchpath=["file://' + str(folder).replace('"', '\\"') + '"]')
    return flags


def _launch(arguments: list[str], job: Job) -> None:
    """Hand over to Hydra, which reads `sys.argv`."""
    from flsplit.config.overrides import groups

    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["flsplit", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on instead of printing and leaving
    try:
        hydra.main(version_base="1.3", config_path=groups(), config_name="config")(job)()
    finally:
        sys.argv = before[0]
        if before[1] is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]


def _version() -> str:
    try:
        return version("flsplit")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
