"""What nobody has foreseen: one line that names a file with the traceback, code 1; a user's mistake is not among it."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.command_line import SMALL, Refused, contents, one_line

import flsplit
from flsplit import cli
from flsplit.assembly import Plan
from flsplit.errors import UserError, explained
from flsplit.experiment import steps
from flsplit.record.tables import Row
from flsplit.report import cli as report
from flsplit.server.shown import Shown


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def stumble(*_: object, **__: object) -> Any:
    raise ValueError("expected a non-empty list of Tensors\nand more")


SAID = "ValueError: expected a non-empty list of Tensors; the traceback is in "


def tells_a_fault(error: str, file: Path) -> bool:
    """Whether the one line names the file, which says where it happened."""
    assert one_line(error) == f"flsplit: {SAID}{file}"
    return "in stumble" in file.read_text() and "list of Tensors\nand more" in file.read_text()


@pytest.mark.some
@pytest.mark.parametrize(
    "place",
    [
        "flsplit.experiment.preparation.data.load", "flsplit.experiment.preparation.data.deal",
        "flsplit.experiment.preparation.engine.workers", "flsplit.assembly.building.build",
        "flsplit.assembly.building.cut", "flsplit.split.families.vit.VisionTransformer", "flsplit.compose.sweep_job",
        "flsplit.config.checks.read",
    ],
)  # fmt: skip
@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_a_value_error_is_no_mistake_of_the_users(
    place: str, sweep: bool, here: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if place.endswith("sweep_job") and not sweep:
        return
    monkeypatch.setattr(place, stumble)
    assert cli.main([*SMALL, *(["-m", "seed=1,2"] if sweep else [])]) == 1
    [file] = temporary.iterdir()
    assert tells_a_fault(capsys.readouterr().err, file)
    assert contents(here) == {}


@pytest.mark.slow
def test_a_run_that_stumbles_can_go_on(
    here: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [*SMALL, "rounds=4"]
    whole = flsplit.run([*keys, "out=whole"])
    with monkeypatch.context() as third_round:
        third_round.setattr(Shown, "begin", lambda self, number, *_: stumble() if number == 3 else None)
        assert cli.main([*keys, "out=cut"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("round ")]
    assert said == [f"flsplit: {SAID}cut/error.log; resume=cut goes on from here"]
    assert "in stumble" in (here / "cut" / "error.log").read_text()
    assert list(temporary.iterdir()) == []
    summary = json.loads((here / "cut" / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("failed", 2)
    resumed = flsplit.run(["resume=cut"])
    pd.testing.assert_frame_equal(whole.rounds.drop(columns="seconds"), resumed.rounds.drop(columns="seconds"))
    assert resumed.summary["status"] == "completed"


@pytest.mark.slow
def test_a_job_that_stumbles_does_not_end_the_sweep(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = steps.finish
    monkeypatch.setattr(
        steps, "finish", lambda plan, *rest: stumble() if plan.config.seed == 1 else original(plan, *rest)
    )
    assert cli.main([*SMALL, "rounds=1", "-m", "seed=1,2", "out=all"]) == 1
    output = capsys.readouterr()
    said = [line for line in output.err.splitlines() if not line.startswith("job ")]
    assert "failed: all/0; the same command again" in output.out
    assert said == [f"flsplit: all/0: {SAID}all/0/error.log; resume=all/0 goes on from here"]
    assert "in stumble" in (here / "all" / "0" / "error.log").read_text()
    assert json.loads((here / "all" / "1" / "summary.json").read_text())["status"] == "completed"


@pytest.mark.slow
def test_settings_whose_seeds_have_failed_are_in_a_sweeps_table(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Means are over the seeds that have come to an end, as in the report."""
    original = steps.finish

    def finish(plan: Plan, *rest: Any) -> Row:
        return original(plan, *rest) if (plan.config.lr, plan.config.seed) in ((0.001, 1), (0.002, 2)) else stumble()

    monkeypatch.setattr(steps, "finish", finish)
    assert cli.main([*SMALL, "rounds=1", "-m", "lr=1e-3,2e-3,3e-3", "seed=1,2", "out=all"]) == 1
    cells = [re.split("  +", line.strip()) for line in capsys.readouterr().out.splitlines()[1:5]]
    assert [row[:2] for row in cells] == [
        ["setting", "seeds"], ["lr=0.001", "1 of 2"], ["lr=0.002", "1 of 2"], ["lr=0.003", "0 of 2"],
    ]  # fmt: skip
    assert cells[3][2:] == ["-", "-", "-"] and cells[1][2].endswith("%")


PLUGIN = """
from {package} import {base}


class Mine({base}):
    def __init__(self, **options):
        super().__init__(**options)
        {trouble}
"""


def write_plugin(here: Path, group: str, name: str, trouble: str, before: str = "") -> list[str]:
    base, package = ("Base", "compressors.base") if group == "compressor" else ("SplitFedV1", "strategies.splitfed_v1")
    (here / f"own_{name}").mkdir()
    (here / f"own_{name}" / "plugin.py").write_text(before + PLUGIN.format(package=package, base=base, trouble=trouble))
    return [f"{group}={'base' if group == 'compressor' else 'splitfed_v1'}", f"{group}.name=own_{name}.plugin"]


@pytest.mark.parametrize("group", ["compressor", "strategy"])
def test_what_a_plugin_says_of_its_options_is_for_the_user(here: Path, refused: Refused, group: str) -> None:
    keys = write_plugin(here, group, f"{group}_refuses", f"raise ValueError('{group}.window must be odd, got 2')")
    assert refused(*SMALL, *keys) == f"flsplit: {group}.window must be odd, got 2"


def test_what_a_plugin_says_of_the_sizes_is_for_the_user(here: Path, refused: Refused) -> None:
    keys = write_plugin(here, "compressor", "checks", "pass")
    with (here / "own_checks" / "plugin.py").open("a") as file:
        file.write("\n    def check(self, **sizes):\n        raise ValueError('compressor.window is too wide')\n")
    assert refused(*SMALL, *keys) == "flsplit: compressor.window is too wide"


@pytest.mark.parametrize("group", ["compressor", "strategy"])
@pytest.mark.parametrize(
    ("trouble", "before", "said"),
    [
        ("{}['window']", "", "KeyError: 'window'"),
        ("None + 1", "", "TypeError: unsupported operand"),
        ("pass", "int('x')\n", "ImportError: {group}: own_{name}.plugin cannot be imported: ValueError: "),
        (
            "pass",
            "import nothing_like_it\n",
            "ImportError: {group}: own_{name}.plugin cannot be imported: ModuleNotFound",
        ),
    ],
)
def test_an_author_sees_where_a_plugin_stumbles(
    here: Path, temporary: Path, capsys: pytest.CaptureFixture[str], group: str, trouble: str, before: str, said: str
) -> None:
    name = f"{group}_stumbles_{abs(hash((trouble, before)))}"
    assert cli.main([*SMALL, *write_plugin(here, group, name, trouble, before)]) == 1
    line = one_line(capsys.readouterr().err)
    [file] = temporary.iterdir()
    assert line.startswith(f"flsplit: {said.format(group=group, name=name)}") and line.endswith(
        f"the traceback is in {file}"
    )
    assert f'own_{name}/plugin.py", line' in file.read_text()


def test_what_timm_says_of_a_model_of_ours_is_no_mistake_of_the_users(
    monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr("timm.create_model", stumble)
    keys = ["model.image_size=32", "model.pretrained=false"]
    assert "cannot build vit_tiny_patch16_224: expected a non-empty" in refused(
        *SMALL, *keys, "model=timm", "model.name=vit_tiny_patch16_224"
    )
    assert cli.main([*SMALL, *keys, "model=deit_tiny"]) == 1


def test_python_gets_the_error_itself(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr("flsplit.assembly.building.cut", stumble)
    with pytest.raises(ValueError, match="list of Tensors") as caught:
        flsplit.run(SMALL)
    assert not isinstance(caught.value, UserError)
    assert list(temporary.iterdir()) == []


def test_the_report_keeps_its_traceback_too(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "write_report", stumble)
    assert report.main(["run"]) == 1
    [file] = temporary.iterdir()
    assert capsys.readouterr().err == f"flsplit-report: {SAID}{file}\n"


def test_a_log_that_cannot_be_written_goes_elsewhere(tmp_path: Path, temporary: Path) -> None:
    error = KeyError()
    assert explained(error, tmp_path / "nowhere") == f"KeyError; the traceback is in {next(temporary.iterdir())}"
    for _ in range(2):
        explained(error, tmp_path)
    assert (tmp_path / "error.log").read_text().count("KeyError") == 2
