"""`flsplit --help`: an overview that fits a screen, and what groups, choices and keys mean."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flsplit import cli
from flsplit.config import help as shown
from flsplit.errors import UserError

CONF = Path(shown.groups())
GROUPS = shown._groups([CONF])


def test_the_overview_fits_a_screen_and_points_to_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "flsplit --help GROUP" in text and "*adc, base" in text and "batch_size=16" in text


@pytest.mark.parametrize("name", [*GROUPS, "keys", "budget", "compressor.ratio", "strategy=splitfed_v2"])
def test_lines_fit_and_nothing_is_left_unexplained(name: str) -> None:
    assert all(len(line) <= 100 for line in shown.text([name]).splitlines())
    for group in {name} & set(GROUPS) - {"experiment"}:
        for path in shown._choices([CONF], group).values():
            assert shown._titles(group, path), path
            assert [entry.key for entry in shown._options(group, path) if not entry.meaning] == [], path


def test_meanings_come_from_where_they_are_written_once() -> None:
    text = shown.text(["compressor=adc"])
    assert "Attention-based Double Compression: merge similar samples" in text  # the module's first line
    assert "compressor.rule=sqrt         sqrt, pow_1_5_4_5, release2026" in text  # the YAML file
    assert "compressor.at_eval=false     whether evaluation merges batches too" in text  # the docstring
    assert "engine.stack=1 " in shown.text(["engine=inline"])  # from beside it
    assert "fewer at the end of a round" in shown.text(["min_clients"])
    assert "faults.crash=0" in shown.text(["faults"])
    assert "typed as resume.force" in shown.text(["resume.force"])
    told = shown.text(["model=vit_micro"]), shown.text(["model=timm"])
    assert "there are no weights" in told[0] and "or true (timm's weights), or the path" in told[1]


def test_choices_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "compressor").mkdir(parents=True)
    (tmp_path / "own" / "compressor" / "mine.yaml").write_text("name: mine.pool\nrate: 0.5\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pool.py").write_text(
        '"""Means of neighbours."""\n\n\nclass Pool:\n    """Pools.\n\n    Args:\n        rate: how many.\n    """\n'
    )
    text = shown.text(["compressor=mine"], tmp_path / "own")
    assert text.splitlines()[1:] == ["  Means of neighbours.", "  compressor.rate=0.5  how many"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("compresor", "did you mean compressor?"), ("compressor=tpk", "did you mean topk?"),
     ("compressor.ratoi", "did you mean ratio?"), ("qqq", "flsplit --help")],
)  # fmt: skip
def test_an_unknown_name_is_one_line(name: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="--help"):
        shown.text([name])
    assert cli.main(["--help", name]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and says in output.err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_a_shell_completes(tmp_path: Path) -> None:
    """What `eval "$(flsplit -sc install=bash)"` sets up, asked as bash asks it when the tab key is pressed."""
    program = tmp_path / "flsplit"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m flsplit.cli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(CONF.parent)}

    def complete(line: str) -> list[str]:
        script = f"""
            eval "$(flsplit -sc install=bash)"
            COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDS=({line}) COMP_CWORD={len(line.split()) - 1}
            $(complete -p flsplit | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return done.stdout.split()

    assert complete("flsplit compressor=to") == ["compressor=topk"]
    assert "compressor.rate=" in complete("flsplit compressor=topk compressor.")
