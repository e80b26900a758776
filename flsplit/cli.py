"""`flsplit [key=value ...]`: the command line, a Hydra application.

Everything that can refuse a configuration comes before Hydra starts a job, for every job of a sweep: Hydra makes its
folders first and asks afterwards.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from flsplit.errors import UserError, goes_on, nearest_path, no_exit, told

if TYPE_CHECKING:
    from flsplit.compose import Request

_REFUSED = ("config_name", "config_path", "experimental_rerun")  # they would replace flsplit's own configuration
_SHOW = ("hydra_help", "cfg", "resolve", "info", "shell_completion")

Job = Callable[[DictConfig], object]


class _Terminated(KeyboardInterrupt):
    """SIGTERM, with which clusters end or requeue a job."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 1 for a run that failed or a fault of the program, 2 for a mistake of the user's, 130 when interrupted, 141
        when nobody reads the output any more, 143 when terminated.
    """
    command = _Command(alone=argv is None)
    if argv is None:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        command.run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt as end:
        how, code = ("terminated", 143) if isinstance(end, _Terminated) else ("interrupted", 130)
        command.fail(f"{how}{goes_on(command.folder)}", code)
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


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


class _Command:
    """One call: what comes of it, and the folder of the run at hand.

    Args:
        alone: whether this process is there for nothing else.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self.code = 0
        self.folder: Path | None = None

    def fail(self, message: object, code: int) -> None:
        """Tell the user in one line."""
        print("flsplit:", " ".join(str(message).splitlines()), file=sys.stderr)
        self.code = max(self.code, code)

    def stopped_by(self, error: Exception) -> None:
        """Tell what has stopped a run."""
        said, code = told(error, self.folder)
        if said:
            self.fail(said, code)
        self.code = max(self.code, code)

    def run(self, arguments: list[str]) -> None:
        """Show what is asked for, or check everything and then let Hydra run it.

        Raises:
            UserError: before anything is written.
        """
        flags = _parse(arguments)
        if flags.version:
            print("flsplit", _version())
        elif flags.help:
            from flsplit.config.help import text

            print(text(flags.overrides, flags.config_dir))
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

        typed = composable(flags.overrides) if flags.cfg else flags.overrides
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
        from flsplit.compose import request

        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # where users keep compressors and strategies of their own
        asked = request(overrides, sweep=sweep)
        if self._alone and not asked.apart:
            from flsplit import engine

            engine.begin(asked.jobs[0])  # Ray starts while data and models are prepared
        if sweep:
            self._sweep(asked)
        else:
            self._single(asked)

    def _single(self, asked: Request) -> None:
        from flsplit.experiment import execute, prepare

        ready = prepare(asked.jobs[0], quiet=False)

        def job(_: DictConfig) -> None:  # composed and prepared: it is the same
            self.folder = ready.out
            try:
                execute(ready.plan.config, prepared=ready)
            except Exception as error:  # on its way through Hydra it would be printed as well
                self.stopped_by(error)

        _start_jobs(asked.overrides, job, "hydra.run.dir")

    def _sweep(self, asked: Request) -> None:
        from flsplit.engine import kept
        from flsplit.sweep import Sweep

        sweep = Sweep(asked)
        try:
            with sweep, kept():
                if not sweep.nothing_left:
                    _start_jobs(["-m", *asked.overrides], sweep.job, "hydra.sweep.dir")
        except UserError:
            raise
        except Exception as error:  # of a launcher's or a sweeper's
            if not sweep.no_best:  # of which Optuna makes an error
                self.stopped_by(error)
        finally:
            self.folder = sweep.job.folder
        sweep.show()
        if sweep.no_best:
            what = asked.jobs[0].objective
            self.fail(f"no job has come to a number of objective={what}, so the search has no best", 1)
        self.code = max(self.code, sweep.code)


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
        flags.config_dir = _own_groups(flags.config_dir)
        if not flags.help:
            path = str(flags.config_dir).replace('"', '\\"')
            flags.overrides.append(f'hydra.searchpath=["file://{path}"]')
    return flags


def _own_groups(typed: str) -> Path:
    """The folder that `--config-dir` names, in which others are groups.

    Raises:
        UserError: if there is no such folder, or no group in it.
    """
    folder = Path(typed).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"--config-dir must be a folder of configuration groups, got {typed}{nearest_path(typed)}")
    if not _has_group(folder):
        meant = next((inner for inner in sorted(folder.glob("*")) if _has_group(inner)), None)
        hint = "" if meant is None else f"; did you mean {Path(typed) / meant.name}?"
        raise UserError(f"--config-dir {typed}: there is no GROUP/NAME.yaml, such as compressor/mine.yaml{hint}")
    return folder


def _has_group(folder: Path) -> bool:
    return any(path for pattern in ("*/*.yaml", "hydra/*/*.yaml") for path in folder.glob(pattern))


def _start_jobs(arguments: list[str], job: Job, key: str) -> None:
    """Have Hydra run what has been checked, in a folder that `key` names.

    Raises:
        UserError: what Hydra says, or that it cannot make the folder.
    """
    from flsplit.config.overrides import in_one_line

    try:
        with in_one_line(), no_exit():
            _launch(arguments, job)
    except OSError as error:  # a job's own do not come this far
        raise UserError(f"{key}: a folder cannot be made: {error}") from error


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
