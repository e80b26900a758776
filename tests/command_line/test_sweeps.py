"""Sweeps where Hydra's launchers start the jobs, and where Optuna chooses them: each recipe with its real package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.command_line import Refused, one_line

from flsplit import cli
from flsplit.compose import compose
from flsplit.server.summary import numbers

FEW = ["dataset.train_limit=40", "dataset.test_limit=20", "clients=2", "rounds=1"]


def needs(package: str) -> pytest.MarkDecorator:
    missing = find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{package}") is None
    return pytest.mark.skipif(missing, reason=f"{package.replace('_', '-')} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(["experiment=joblib", "hydra.launcher.n_jobs=2"], marks=needs("hydra_joblib_launcher")),
        pytest.param(
            ["experiment=slurm", "hydra/launcher=submitit_local", "hydra.launcher.gpus_per_node=0"],
            marks=needs("hydra_submitit_launcher"),
        ),
    ],
    ids=lambda recipe: recipe[0],
)  # fmt: skip
def test_jobs_of_a_launcher(recipe: list[str], here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def start(keys: list[str]) -> tuple[int, str, str]:
        return cli.main(keys), *capfd.readouterr()

    check_two_jobs(recipe, here, start)


@pytest.mark.slow
@needs("hydra_ray_launcher")
@pytest.mark.xdist_group("ray")
def test_jobs_as_tasks_of_ray(here: Path) -> None:
    """In a process of its own: the launcher leaves a Ray behind that belongs to its sweep."""

    def start(keys: list[str]) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "flsplit.cli", *keys]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, done.stdout, done.stderr

    check_two_jobs(["experiment=ray_jobs"], here, start)


def check_two_jobs(recipe: list[str], here: Path, start: Callable[[list[str]], tuple[int, str, str]]) -> None:
    """A sweep of two jobs, whose lines and files are there, and which has nothing left to do after that.

    Args:
        recipe: its first keys.
        here: folder that it starts in.
        start: gives code, output and errors of a command.
    """
    sweep = ["-m", *recipe, *FEW, "seed=0,1", "logger=csv", "out=all"]
    code, output, errors = start(sweep)
    assert code == 0, errors
    said, shown = errors.splitlines(), output.splitlines()
    assert [re.split("  +", line)[0] for line in said] == ["job 1/2", "job 2/2"]
    assert {line.split()[-1] for line in said} == {"0", "1"}
    assert shown[0] == "2 jobs in all" and re.search(r" 2 +\d+\.\d% ± \d+\.\d +\S+ Mb ", shown[2])
    assert [json.loads((here / "all" / job / "summary.json").read_text())["seed"] for job in "01"] == [0, 1]
    assert not (here / "all" / ".jobs").exists()
    code, _, errors = start(sweep)
    assert code == 0
    assert sorted(errors.splitlines()) == [f"flsplit: all/{job} is done already" for job in "01"]


@pytest.mark.slow
@needs("hydra_joblib_launcher")
def test_what_fails_in_another_process_is_told_here(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "fails.py").write_text(
        "from compressors.topk import TopK\nfrom pathlib import Path\n\n\nclass Mine(TopK):\n"
        "    def compress(self, *args, **kwargs):\n        raise RuntimeError('on purpose')\n"
    )
    (here / "own" / "compressor").mkdir(parents=True)
    (here / "own" / "compressor" / "mine.yaml").write_text("name: mine.fails\n")
    keys = ["--config-dir", "own", "experiment=joblib", "hydra.launcher.n_jobs=1", *FEW, "min_clients=1"]
    assert cli.main(["-m", *keys, "compressor=topk,mine", "out=all"]) == 1
    output = capfd.readouterr()
    assert "flsplit: all/1: " in output.err and "Traceback" not in output.err
    assert [line.split("  ")[1] for line in output.err.splitlines() if line.startswith("job ")][1] == "failed"
    assert "failed: all/1; the same command again goes on with them" in output.out


@pytest.mark.slow
@needs("hydra_optuna_sweeper")
def test_optuna_looks_for_the_best(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = [
        "experiment=optuna",
        "hydra.sweeper.n_trials=3",
        "objective=uplink_bits",
        "hydra.sweeper.direction=minimize",
        "objective=uplink_bits",
    ]
    search = [
        "-m",
        *keys,
        *FEW,
        "objective=uplink_bits",
        "compressor=topk",
        "compressor.rate=interval(0.05,0.5)",
        "out=all",
    ]
    assert cli.main(search) == 0
    output = capfd.readouterr()
    rates = [float(rate) for rate in re.findall(r"compressor\.rate=([\d.]+)$", output.err, re.M)]
    assert len(rates) == len(output.err.splitlines()) == 3
    bits = [json.loads((here / "all" / job / "summary.json").read_text())["uplink_bits"] for job in "012"]
    assert bits.index(min(bits)) == rates.index(min(rates))
    [best] = re.findall(r"best uplink_bits: (\S+) with compressor.rate=(\S+)", output.out)
    assert (float(best[0]), float(best[1])) == (pytest.approx(min(bits), rel=1e-3), pytest.approx(min(rates), rel=1e-3))
    summary = json.loads((here / "all" / "0" / "summary.json").read_text())
    assert all(isinstance(summary[name], int | float) for name in numbers(compose(FEW), ["accuracy"]))
    assert cli.main(search) == 0  # the same values are proposed again
    assert capfd.readouterr().err.splitlines() == [f"flsplit: all/{job} is done already" for job in "012"]


@pytest.mark.slow
@needs("hydra_optuna_sweeper")
def test_a_search_without_any_number_has_no_best(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Runs that diverge come to an end, but to no accuracy."""
    search = ["-m", "experiment=optuna", "hydra.sweeper.n_trials=2", *FEW, "lr=1e12,1e13", "out=all"]
    assert cli.main(search) == 1
    output = capfd.readouterr()
    assert output.err.splitlines()[-1] == (
        "flsplit: no job has come to a number of objective=best_test_accuracy, so the search has no best"
    )
    assert "Traceback" not in output.err and "traceback" not in output.err and "2 jobs in all" in output.out


@pytest.mark.some
@needs("hydra_optuna_sweeper")
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["objective=accuracy", "lr=interval(1e-4,1e-2)"], "objective must be one of final_test_accuracy"),
        (["lr=interval(-1,1)"], "lr must be a positive number, got -1"),
        (["compressor=adcc,topk"], "did you mean adc?"),
        ([], "-m: a search needs values to choose from"),
    ],
)
def test_a_search_that_cannot_be(keys: list[str], says: str, refused: Refused) -> None:
    assert says in refused("-m", "experiment=optuna", *FEW, *keys)


def test_an_interval_needs_a_search(refused: Refused) -> None:
    assert "experiment=optuna" in refused("-m", "lr=interval(1e-4,1e-2)")


def test_an_objective_that_there_is_not(refused: Refused) -> None:
    assert "; did you mean best_test_accuracy?" in refused("objective=test_accuracy", "engine=inline")


def test_a_launcher_that_is_not_installed(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert cli.main(["-m", "hydra/launcher=rq_other", "seed=1,2"]) == 2
    assert 'pip install "flsplit[sweeps]"' in one_line(capsys.readouterr().err)


def test_recipes_together() -> None:
    config = compose(["experiment=[paper,joblib]", "model=vit_micro", "dataset=digits"])
    assert (config.batch_size, config.engine.name) == (128, "inline")
