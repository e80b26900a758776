"""`flsplit [key=value ...]`: the command line, a Hydra application."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from flsplit.errors import RunFailed, UserError

_outcomes: list[Exception] = []  # of this command's jobs; raised here, they would pass through Hydra, which prints


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def _job(cfg: DictConfig) -> None:
    from flsplit.compose import plain, resolve
    from flsplit.experiment import execute

    try:
        settings = HydraConfig.get()
        config = resolve(plain(cfg), list(settings.overrides.task))
        if settings.mode == RunMode.MULTIRUN:  # one folder per job, below `out` if it is given
            base = Path(config.out) if config.out else Path(settings.sweep.dir)
            config = replace(config, out=str(base / str(settings.job.num)))
        execute(config)
    except (UserError, RunFailed) as error:
        _outcomes.append(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 1 for a run that failed, 2 for a mistake of the user's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    before, sys.argv = sys.argv, ["flsplit", *arguments]
    sys.path.append(str(Path.cwd()))  # a user's own compressors and strategies lie where the command is given
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its own errors on instead of printing and leaving
    _outcomes.clear()
    try:
        _apply(arguments)
    except KeyboardInterrupt:
        print("flsplit: interrupted; continue with resume=FOLDER", file=sys.stderr)
        return 130
    finally:
        sys.argv = before
    for error in _outcomes:
        print(f"flsplit: {error}", file=sys.stderr)
    return max((2 if isinstance(error, UserError) else 1 for error in _outcomes), default=0)


def _apply(arguments: list[str]) -> None:
    from flsplit.compose import check_sweep, in_one_line

    try:
        with in_one_line(arguments):
            if {"-m", "--multirun"} & set(arguments):
                check_sweep([a for a in arguments if not a.startswith("-")])
            _job()
    except UserError as error:
        _outcomes.append(error)


if __name__ == "__main__":
    sys.exit(main())
