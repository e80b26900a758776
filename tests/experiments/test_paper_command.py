"""The words of `experiments.paper`: what it tells of itself, lists and refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.paper import __main__ as paper


def test_help_says_what_each_name_is_and_how_many_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        paper.main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +{re.escape(what)}", shown, re.MULTILINE) for name, what in paper.NAMES.items())
    assert "(2 / 2 / 2)" in shown  # fig8, by hand


def test_listed_runs_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert paper.main(["fig8", "--list", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 2 done"


@pytest.mark.parametrize(
    "arguments", [["fig2"], ["fig4", "--ratios", "2"], ["fig4", "--methods", "adk"], ["fig4", "--seeds", "x"]]
)
def test_mistakes_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        paper.main(arguments)
    assert left.value.code == 2 and "error: argument" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folders = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert paper.main(["fig4", "--methods", "base", *folders]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("give a local copy with --data FOLDER") and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        "fig3 --methods topk", "fig3 --ratios 0.1", "fig3 --rules sqrt", "fig6 --methods topk", "fig8 --methods base",
        "table2 --methods base", "rules --rules sqrt", "rules --set lr=1", "rules --model deit_small",
        "table1 --seeds 3", "table1 --list", "compare --draw", "compare --methods topk", "compare --machine x=1",
    ],
)  # fmt: skip
def test_what_is_taken_no_notice_of_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert paper.main(words.split()) == 2
    name, key = words.split()[:2]
    assert capsys.readouterr().err == f"experiments.paper: {key}: {name} takes no notice of it, leave it out\n"


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("rows --scale reduced --dataset cifar100,food101", 22),
        ("rows --scale reduced --rules release2026 --methods adc", 2),
        ("rows --scale medium --ratios 0.1 --methods adc", 3),  # each of its rules
        ("fig4 --scale reduced --ratios 0.1 --methods adc", 1),
        ("fig4 --scale reduced --ratios 0.1 --methods adc --rules sqrt,release2026", 2),
    ],
)
def test_a_choice_is_narrowed(words: str, runs: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert paper.main([*words.split(), "--list", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"0 of {runs} done"
