"""ADC's rules side by side: which samples and bits are held equal, and that the page says what the rows say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.paper import __main__ as command
from experiments.paper import rules
from experiments.paper.protocol import RULES
from experiments.paper.reported import HOME as PAPER
from experiments.results import COLUMNS, Results


def test_what_is_held_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = rules.points("reduced", [0.1])
    assert [(p.rule, p.options) for p in points] == [*((rule, ()) for rule in RULES), ("release2026", (rules.CHARGED,))]
    samples = dict(zip(points, (300_000, 250_000, 100_000, 250_000)))  # ten epochs of 2,500 at 0.1: 250,000
    (tmp_path / "curves").mkdir()
    rows = []
    for point in points:
        end = 0.5 if point.options else 0.4
        rows.append(dict.fromkeys(COLUMNS, 0) | point.key | {"samples": samples[point], "final_test_accuracy": end})
        curve = {"samples": [samples[point] // 2, samples[point]], "test_accuracy": [0.3, end]}
        pd.DataFrame(curve).to_csv(tmp_path / "curves" / f"{point.slug}.csv", index=False)
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    found = rules.gather(points, Results(tmp_path)).set_index("rule")
    assert found.real.tolist() == pytest.approx([40, 40, 40])
    assert found.equally.tolist() == pytest.approx([20, 24, 40])  # after 100,000
    assert found.charged.tolist() == pytest.approx([30 + 10 * 2 / 3, 40, 50])
    assert command.main(["rules", "--ratios", "0.1", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "nothing to run, 4 runs are there" in out
    assert "| 0.1 | `sqrt` | 0.000 | 300 | 40.0% | 20.0% | 36.7% | 77.2% |" in out

    rows[0]["final_test_accuracy"] = None  # and its curve ends without a number
    curve = {"samples": [50_000, 300_000], "test_accuracy": [0.3, None]}
    pd.DataFrame(curve).to_csv(tmp_path / "curves" / f"{points[0].slug}.csv", index=False)
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    assert "| 300 | diverged | - | - | 77.2% |" in rules.table(rules.gather(points, Results(tmp_path)))

    pd.DataFrame(rows[:3]).to_csv(tmp_path / "results.csv", index=False)
    assert rules.gather(points, Results(tmp_path)).charged.isna().tolist() == [True, False, True]


def test_seeds_are_told_apart(tmp_path: Path) -> None:
    points = [p for seed in (1, 2) for p in rules.points("reduced", [0.1], ("sqrt",), seed)]
    (tmp_path / "curves").mkdir()
    made = []
    for point, samples in zip(points, (300_000, 200_000)):
        made.append(dict.fromkeys(COLUMNS, 0) | point.key | {"samples": samples, "final_test_accuracy": 0.4})
        curve = {"samples": [samples // 2, samples], "test_accuracy": [0.2, 0.4]}
        pd.DataFrame(curve).to_csv(tmp_path / "curves" / f"{point.slug}.csv", index=False)
    pd.DataFrame(made).to_csv(tmp_path / "results.csv", index=False)
    found = rules.gather(points, Results(tmp_path))
    assert found.seed.tolist() == [1, 2] and found.equally.tolist() == [40, 40]  # alone, each with its own seed
    shown = rules.table(found).splitlines()
    assert "| 0.1 | `sqrt` | 2 | 0.000 | 200 |" in shown[3] and len({line.count("|") for line in shown}) == 1


def test_no_rows_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["rules", "--draw", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "experiments.paper: rules: no rows yet\n"


def test_the_page_says_what_the_rows_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["rules", "--draw"]) == 0
    assert capsys.readouterr().out.strip() in (PAPER / "rules.md").read_text()
