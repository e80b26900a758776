"""From `key=value` to a checked `Config`: Hydra composes, `flsplit.config` checks. Nothing here is slow to import."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import compose as hydra_compose
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from flsplit.config.overrides import hydra, in_one_line, keys, parse, quoted, read
from flsplit.errors import UserError, no_exit

if TYPE_CHECKING:
    from flsplit.config.schema import Config
    from flsplit.server.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command line asks for.

    Attributes:
        overrides: as Hydra takes them.
        jobs: a checked configuration for each run, in Hydra's order; of a search, one that it may begin with.
        folder: of the whole sweep; None for a single run.
        searched: keys of a search: a sweeper of Hydra's (Optuna) chooses their values from what jobs have come to.
        trials: how many jobs there will be.
        apart: whether a launcher of Hydra's starts jobs in other processes.
    """

    overrides: list[str]
    jobs: list[Config]
    folder: Path | None = None
    searched: tuple[str, ...] = ()
    trials: int | None = 1
    apart: bool = False


def compose(overrides: Sequence[str]) -> Config:
    """Compose and check a configuration.

    Args:
        overrides: as on the command line, such as `["clients=4", "compressor=topk"]`.

    Raises:
        UserError: one line that names the key, what is wrong and what would be right.
    """
    return request(overrides).jobs[0]


def request(overrides: Sequence[str], *, sweep: bool = False) -> Request:
    """Compose and check one job, or all jobs of a sweep.

    Raises:
        UserError: see `compose`.
    """
    with hydra(), in_one_line(overrides):
        typed = read(overrides)
        if not sweep:
            return Request(overrides=typed, jobs=[resolve(hydra_compose("config", overrides=typed), typed)])
        application = GlobalHydra.instance().hydra
        assert application is not None
        master = application.compose_config(
            "config", typed, RunMode.MULTIRUN, with_log_configuration=False, validate_sweep_overrides=False
        )
        if master.out is not None and "hydra.sweep.dir" not in (o.key_or_group for o in parse(typed)):
            typed.append("hydra.sweep.dir=${out}")
        else:  # worked out once: whatever the time in it, all jobs and Hydra itself have the same folder
            typed.append("hydra.sweep.dir=" + quoted(str(master.hydra.sweep.dir)))
        given = parse([*(f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()), *typed])
        trials = master.hydra.sweeper.get("n_trials")
        searched = () if _is(master.hydra.sweeper, BasicSweeper) else _searched(given)
        if searched:
            jobs = [[_first(override) for override in given]]
        else:
            [jobs] = BasicSweeper.split_arguments(given, max_batch_size=None)
            trials = len(jobs)
        if not jobs:
            raise UserError("-m: the values given make no combination at all, so there is nothing to run")
        configs = [sweep_job(read(job), number, master) for number, job in enumerate(jobs)]
        folder = Path(str(master.out if typed[-1].endswith("${out}") else master.hydra.sweep.dir)).expanduser()
    folders = [config.out for config in configs]
    if shared := [folder for folder in folders if folders.count(folder) > 1]:
        raise UserError(f"-m: several jobs would write into {shared[0]}; each needs a folder of its own")
    return Request(
        overrides=typed, jobs=configs, folder=folder, searched=searched, trials=trials,
        apart=not _is(master.hydra.launcher, BasicLauncher),
    )  # fmt: skip


def _is(plugin: DictConfig, kind: type) -> bool:
    return str(plugin.get("_target_")).endswith(f".{kind.__name__}")


def _searched(given: Sequence[Override]) -> tuple[str, ...]:
    """Keys with several values, for a sweeper that is not Hydra's own.

    Raises:
        UserError: if there is none.
    """
    keys = tuple(dict.fromkeys(override.key_or_group for override in given if override.is_sweep_override()))
    if not keys:
        raise UserError(
            "-m: a search needs values to choose from, such as 'lr=interval(1e-4,1e-2)' or compressor=adc,topk"
        )
    return keys


def _first(override: Override) -> str:
    """An override with the first of its values, or the least."""
    if not override.is_sweep_override():
        return f"{override.get_key_element()}={override.get_value_element_as_str()}"
    value = override.value()
    first = value.start if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator()))
    return f"{override.get_key_element()}={first}"


def sweep_job(overrides: list[str], number: int, master: DictConfig) -> Config:
    """A job of a sweep: its folder lies below `out` or, without it, below Hydra's folder of the sweep. Within Hydra.

    Args:
        overrides: all that were typed, one value each.
        number: which job.
        master: the sweep's configuration, for what is worked out once.

    Raises:
        UserError: see `compose`.
    """
    with in_one_line(overrides):
        composed = hydra_compose("config", overrides=[*overrides, f"hydra.job.num={number}"], return_hydra_config=True)
        OmegaConf.copy_cache(from_config=master, to_config=composed)
        job = resolve(composed, overrides)
        if job.resume is not None:
            return job
        sweep = composed.hydra.sweep
        return _taken_up(replace(job, out=str(Path(job.out or sweep.dir) / str(sweep.subdir))))


def _taken_up(job: Config) -> Config:
    """A job of a sweep that is started again: what was cut off goes on where it was; see `is_done` for the others."""
    assert job.out is not None
    saved = Path(job.out) / "config.yaml"
    same = saved.is_file() and _same(saved.read_text(), job.to_yaml(Path(job.out)))
    return replace(job, resume=job.out) if same else job


def _same(saved: str, wanted: str) -> bool:
    """Whether two texts of a `config.yaml` say the same: a number is, however it is typed."""
    try:
        return bool(OmegaConf.create(saved) == OmegaConf.create(wanted))
    except (YAMLError, OmegaConfBaseException):
        return False


def is_done(job: Config) -> bool:
    """Whether a job of a sweep goes on with a run that has come to its end."""
    if job.resume is None or job.resume != job.out:
        return False
    try:
        summary = json.loads((Path(job.resume) / "summary.json").read_text())
    except (OSError, ValueError):
        return False
    rounds = job.rounds is None or summary["rounds"] >= job.rounds
    return summary["status"] == "budget" or (summary["status"] == "completed" and rounds)


@no_exit()
def resolve(config: DictConfig, overrides: Sequence[str]) -> Config:
    """Check a composed configuration; with `resume`, start from that run's instead. Within Hydra.

    Raises:
        UserError: see `compose`.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    with in_one_line(overrides):
        container = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    values = {str(key): value for key, value in container.items()}
    from flsplit.config.checks import read_config  # imports PyTorch: not for what Hydra has refused by now
    from flsplit.server.strategy import build

    if values.get("resume") is not None:
        from flsplit.server.resume import resumed

        values = resumed(values, keys(overrides))
    checked = read_config(values)
    if {"local_epochs", "local_steps"} <= set(keys(overrides)) and None not in (
        checked.local_epochs,
        checked.local_steps,
    ):
        raise UserError(
            "local_epochs and local_steps both say how long a client trains in a round; give one, got "
            f"local_epochs={checked.local_epochs} and local_steps={checked.local_steps}"
        )
    strategy = build(**checked.strategy)
    if checked.budget.allocation != "equal" and not strategy.split:
        raise UserError(
            f"budget.allocation must be equal for strategy={strategy.name}, whose clients send no activations; got "
            f"{checked.budget.allocation}"
        )
    _check_cohort(checked, strategy)
    checked = strategy.adapt(checked)
    if checked.taking_part < strategy.aggregator.fewest:
        raise UserError(
            f"strategy.aggregator={checked.strategy['aggregator']} needs at least {strategy.aggregator.fewest} clients "
            f"in a round, got {checked.taking_part}"
        )
    return checked


def _check_cohort(config: Config, strategy: Strategy) -> None:
    """Refuse to compress clients as one where they never send together.

    Raises:
        UserError: if they do not.
    """
    if config.compressor_instance().cohort is None:
        return
    if not strategy.meets:
        raise UserError(
            f"compressor.scope must be client for strategy={strategy.name} as it is, whose clients do not send their "
            "batches together; cohort needs strategy=parallel, or splitfed_v2 with strategy.turn=step and "
            "strategy.order=random"
        )
    if strategy.logit_adjustment:
        raise UserError(
            "strategy.logit_adjustment must be 0 with compressor.scope=cohort, whose clusters have samples of several "
            f"clients; got {strategy.logit_adjustment:g}"
        )
    if config.budget.allocation != "equal":
        raise UserError(
            "budget.allocation must be equal with compressor.scope=cohort, which has one ratio for all clients; got "
            f"{config.budget.allocation}"
        )
    if config.engine.stack > 1:
        raise UserError(
            f"engine.stack must be 1 with compressor.scope=cohort, whose clients share one server-side model; got "
            f"{config.engine.stack}"
        )
