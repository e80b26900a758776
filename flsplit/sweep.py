"""A sweep (`-m`): its jobs, in this process or wherever a launcher of Hydra's starts them, and what came of them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from flsplit import engine, experiment
from flsplit.compose import Request, is_done, sweep_job
from flsplit.config.overrides import hydra
from flsplit.config.schema import Config
from flsplit.display.sweep import Jobs, Row, table_of_settings
from flsplit.errors import told
from flsplit.experiment import Prepared
from flsplit.record import atomic
from flsplit.record.run import SUMS
from flsplit.report import labels

NOTES = ".jobs"  # in the sweep's folder, while it goes on: what has come of jobs in other processes
_EVERY = 0.5  # seconds between looks at them


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What has come of a job.

    Attributes:
        number: which job.
        folder: of its run; empty where it did not get one.
        said: a line for the user; empty if all went well.
        code: as of `flsplit` for a run of its own.
        seconds: that it took; None if it was done before.
        config: of its run.
        varied: settings that other jobs have otherwise.
        summary: of its run.
    """

    number: int
    folder: str = ""
    said: str = ""
    code: int = 0
    seconds: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    varied: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether its run has come to a good end."""
        return not self.code and bool(self.summary)

    @property
    def score(self) -> float | None:
        """Its objective, for a sweeper that looks for the best; None if it has failed, or come to no number."""
        found = self.summary.get(str(self.config.get("objective")))
        return None if self.code or found is None else float(found)


class Job:
    """What Hydra calls for each job, here or, copied, in another process.

    Args:
        keys: settings that vary, as `labels.varied` calls them.
        notes: a folder for what comes of it in another process.

    Attributes:
        ready: by number, jobs that are prepared, or done before; in other processes each prepares its own.
        hear: takes what has come of a job in this process; None where a launcher starts them in others.
        folder: of the run at hand.
    """

    def __init__(self, keys: Sequence[str], notes: Path) -> None:
        self._keys, self._notes, self._process = tuple(keys), notes.absolute(), os.getpid()
        self.ready: dict[int, Prepared | Config] = {}
        self.hear: Callable[[Outcome], None] | None = None
        self.folder: Path | None = None
        self._told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: without what this one has prepared."""
        return {**self.__dict__, "ready": {}, "hear": None}

    def __call__(self, _: DictConfig) -> float | None:
        """Run a job.

        Returns:
            its `Outcome.score`.
        """
        outcome = self._outcome(HydraConfig.get().job.num)
        if self.hear is not None:
            self.hear(outcome)
        else:
            self._notes.mkdir(parents=True, exist_ok=True)
            atomic.write(self._notes / f"{outcome.number}.json", json.dumps(asdict(outcome)).encode())
        return outcome.score

    def _outcome(self, number: int) -> Outcome:
        began = time.monotonic()
        self.folder, config, varied, summary = None, None, {}, {}
        try:
            ready = self.ready.pop(number, None) or self._composed(number)
            config = ready.plan.config if isinstance(ready, Prepared) else ready
            varied = _at(self._keys, config)
            if isinstance(ready, Config):
                if is_done(ready):
                    return _done(number, ready, varied)
                ready = experiment.prepare(ready)
            ready = replace(ready, varied=varied, sweep=self._notes.parent, told=frozenset(self._told))
            self._told.update(ready.notes)
            self.folder = ready.out
            run = experiment.execute(config, prepared=ready)
            summary = run.summary if run is not None else {}
            said, code = "", 0
        except Exception as error:  # on its way through Hydra it would be printed as well, and end a sweep
            said, code = told(error, self.folder)
            said = f"{self.folder or f'job {number}'}: {said}" if said else ""
        return Outcome(
            number=number, folder=str(self.folder or ""), said=said, code=code, seconds=time.monotonic() - began,
            config=config.as_dict() if config is not None else {}, varied=varied, summary=summary,
        )  # fmt: skip

    def _composed(self, number: int) -> Config:
        if os.getpid() != self._process:
            os.environ["NO_COLOR"] = "1"  # processes side by side cannot share a terminal's last line
            if (here := str(Path.cwd())) not in sys.path:
                sys.path.append(here)
        typed, master = HydraConfig.get().overrides, HydraConfig.instance().cfg
        assert master is not None
        with hydra():
            return sweep_job([*typed.hydra, *typed.task], number, master)


def _done(number: int, config: Config, varied: Mapping[str, Any]) -> Outcome:
    """What came of a job before."""
    assert config.out is not None
    summary = json.loads((Path(config.out) / "summary.json").read_text())
    return Outcome(
        number=number, folder=config.out, said=f"{config.out} is done already", config=config.as_dict(),
        varied=varied, summary=summary,
    )  # fmt: skip


class Sweep:
    """The jobs that a command line asks for.

    Args:
        asked: the command line.

    Attributes:
        code: of the worst job, as of `flsplit`.
        job: what Hydra is to call for each.
        nothing_left: whether no other process need be started, as all jobs are done.

    Raises:
        UserError: before anything is written.
    """

    def __init__(self, asked: Request) -> None:
        assert asked.folder is not None
        self._asked, self._outcomes, self._lock = asked, dict[int, Outcome](), threading.Lock()
        self.code, self.nothing_left = 0, False
        self._notes = asked.folder / NOTES
        configs = [config.as_dict() for config in asked.jobs]
        self.job = Job(asked.searched or list(labels.varied(configs)), self._notes)
        self._names = []
        if asked.searched:
            _quiet()
            experiment.prepare(replace(asked.jobs[0], out=None, resume=None), quiet=False)
        else:
            self._names = labels.short_labels(configs, [Path(str(config["out"])).name for config in configs])
            ready = {
                number: job if is_done(job) else experiment.prepare(job, quiet=False)
                for number, job in enumerate(asked.jobs)
            }
            self.job.ready = {} if asked.apart else ready
            if asked.apart and all(isinstance(job, Config) for job in ready.values()):
                self.nothing_left = True
        if asked.apart:
            engine.quiet()
        else:
            self.job.hear = self._hear
        self._jobs = Jobs(asked.trials)

    def __enter__(self) -> Sweep:
        """Jobs are about to run."""
        self._jobs = Jobs(self._asked.trials)
        if self._asked.apart:
            shutil.rmtree(self._notes, ignore_errors=True)
            self._over = threading.Event()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No job runs any more."""
        if self._asked.apart:
            self._over.set()
            self._watcher.join()
            shutil.rmtree(self._notes, ignore_errors=True)

    def show(self) -> None:
        """The table of what came of it; jobs of which nothing was heard have failed."""
        for number, config in enumerate([] if self._asked.searched else self._asked.jobs):
            if self.nothing_left:
                self._hear(_done(number, config, {}))
            elif number not in self._outcomes:
                missed = str(config.out)
                self._hear(
                    Outcome(
                        number=number, folder=missed, said=f"{missed}: its process ended without a word", code=1,
                        config=config.as_dict(),
                    )
                )  # fmt: skip
        folder, outcomes = self._asked.folder, [self._outcomes[number] for number in sorted(self._outcomes)]
        well = any(outcome.well for outcome in outcomes)
        failed = [outcome.folder or f"job {outcome.number}" for outcome in outcomes if outcome.code]
        after = [f"failed: {', '.join(failed)}; the same command again goes on with them"] if failed else []
        after += self._best()
        after += [f"more: flsplit-report {folder}, flsplit-plot {folder} --out figure.pdf"] if well else []
        title = f"{len(outcomes)} job{'s' * (len(outcomes) != 1)} in {folder}"
        if well or failed:
            named = [outcome for outcome in outcomes if outcome.config] if well else []
            table_of_settings(_rows(named), title=title, after=after)

    @property
    def no_best(self) -> bool:
        """Whether it is a search whose jobs have all failed, or come to no number."""
        outcomes = self._outcomes.values()
        return bool(self._asked.searched and outcomes) and all(outcome.score is None for outcome in outcomes)

    def _best(self) -> list[str]:
        """What a search has found, as Optuna has left it."""
        assert self._asked.folder is not None
        path = self._asked.folder / "optimization_results.yaml"
        if not (self._asked.searched and path.is_file()):
            return []
        found = OmegaConf.to_container(OmegaConf.load(path))
        if not (isinstance(found, dict) and "best_params" in found):
            return []
        words = " ".join(f"{key}={labels.text(value)}" for key, value in found["best_params"].items())
        return [f"best {self._asked.jobs[0].objective}: {found['best_value']:.4g} with {words}"]

    def _watch(self) -> None:
        """Hear of jobs in other processes, until all of it is over."""
        over = False
        while not over:
            over = self._over.wait(_EVERY)
            for path in sorted(self._notes.glob("*.json")) if self._notes.is_dir() else []:
                if path.stem.isdecimal() and int(path.stem) not in self._outcomes:
                    with suppress(OSError, ValueError):
                        self._hear(Outcome(**json.loads(path.read_text())))

    def _hear(self, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes[outcome.number] = outcome
            self.code = max(self.code, outcome.code)
            if outcome.said:
                self._jobs.note(f"flsplit: {' '.join(outcome.said.splitlines())}")
            if outcome.seconds is None and not outcome.code:
                self._jobs.passed_over()
                return
            words = " ".join(f"{key}={labels.text(value)}" for key, value in outcome.varied.items())
            name = self._names[outcome.number] if self._names else words
            self._jobs.ended(
                name, accuracy=outcome.summary.get("final_test_accuracy"), seconds=outcome.seconds or 0,
                failed=bool(outcome.code),
            )  # fmt: skip


def _rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """A row for each setting: means over those of its seeds that have come to a good end."""
    from flsplit.report.seeds import by_setting, mean_of  # SciPy's statistics take a moment

    rows = []
    for name, members in by_setting([o.config for o in outcomes], [Path(o.folder).name for o in outcomes]):
        found = [outcomes[member].summary for member in members if outcomes[member].well]
        accuracies = [summary["final_test_accuracy"] for summary in found]
        rows.append(
            Row(
                name=name, seeds=len(members), well=len(found),
                accuracy=mean_of(accuracies) if found and None not in accuracies else None,
                bits=mean_of([sum(summary[key] for key in SUMS["bits"]) for summary in found])[0] if found else None,
                seconds=mean_of([summary["seconds"] for summary in found])[0] if found else None,
            )
        )  # fmt: skip
    return rows


def _quiet() -> None:
    """Keep Optuna, and Hydra's plug-in for it, from writing between our lines."""
    with suppress(ImportError):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("hydra_plugins").setLevel(logging.CRITICAL)


def _at(keys: Sequence[str], config: Config) -> dict[str, Any]:
    """The values of settings, by keys as `labels.varied` calls them."""
    found = labels.settings(config.as_dict())
    return {key: found.get(key, found.get(f"{key}.name")) for key in keys}
