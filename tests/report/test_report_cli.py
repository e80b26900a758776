"""`flsplit-report`: mistakes are one line and exit code 2, and write nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_runs import make_run

from flsplit.report.cli import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command, which must refuse in one line; returns that line."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("flsplit-report: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    return err


@pytest.mark.slow
def test_writes_the_page_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    assert main([str(make_run(tmp_path / "run")), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert out.stat().st_mode & 0o444 == 0o444
    assert capsys.readouterr() == (f"wrote {out}\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run"]


def test_no_such_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    (tmp_path / "empty").mkdir()
    assert "no such folder" in refused(capsys, tmp_path / "absent", "--out", out)
    assert "no run here" in refused(capsys, tmp_path / "empty", "--out", out)
    (tmp_path / "file").write_text("x")
    assert "no such folder" in refused(capsys, tmp_path / "file", "--out", out)
    assert not out.exists()


def test_no_run_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: flsplit-report RUN... --out report.html" in refused(capsys)
    assert "--bogus" in refused(capsys, "run", "--bogus")


def test_out_must_be_a_page_in_a_folder_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    kept = (run / "config.yaml").read_bytes()
    assert "no folder" in refused(capsys, run, "--out", tmp_path / "absent" / "report.html")
    assert "is a folder" in refused(capsys, run, "--out", run)
    assert "is no HTML page" in refused(capsys, run, "--out", run / "config.yaml")
    assert (run / "config.yaml").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "name,content,told",
    [
        ("rounds.parquet", b"PAR1 but not really", "not a readable Parquet file"),
        ("partition.parquet", b"", "not a readable Parquet file"),
        ("summary.json", b'{"status": "comp', "not a readable JSON file"),
        ("summary.json", b"[1]", "expected a JSON object"),
        ("config.yaml", b"a: [1\nb: :", "not a readable YAML file"),
        ("config.yaml", b"- 1\n- 2\n", "expected keys and values"),
    ],
)
def test_unreadable_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, told: str
) -> None:
    run = make_run(tmp_path / "run")
    (run / name).write_bytes(content)
    line = refused(capsys, run, "--out", tmp_path / "report.html")
    assert f"run/{name}: " in line
    assert told in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_truncated_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    table = run / "clients.parquet"
    table.write_bytes(table.read_bytes()[:-40])
    assert "clients.parquet: not a readable" in refused(capsys, run, "--out", tmp_path / "report.html")
