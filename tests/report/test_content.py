"""Runs with the same settings, but other data or weights behind them, are not compared without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_runs import config, make_run, rounds_table, summary_of
from PIL import Image

import flsplit
from flsplit.report.content import unlike
from flsplit.report.page import write_report
from flsplit.report.runs import load_run

FOLDER = {"name": "folder", "path": "/photos", "train_limit": None, "test_limit": None}


def said(folder: Path, *runs: tuple[dict, dict]) -> str:
    made = [
        make_run(folder / str(number), config(**settings), summary=summary_of(rounds_table(12), **summary))
        for number, (settings, summary) in enumerate(runs)
    ]
    return unlike([load_run(run) for run in made], [run.name for run in made])


def test_other_data_and_weights_behind_the_same_settings_are_told(tmp_path: Path) -> None:
    data = [({"dataset": FOLDER, "seed": seed}, {"data": digest}) for seed, digest in enumerate("aba")]
    assert "<code>dataset</code>, but other data:</strong> 0, 2 against 1." in said(tmp_path / "data", *data)
    model = {"model": {"name": "vit_micro", "pretrained": "/w.safetensors"}}
    weights = [(model, {"data": "a", "weights": digest}) for digest in "ab"]
    told = said(tmp_path / "weights", *weights)
    assert "<code>model.pretrained</code>, but other weights:</strong> 0 against 1." in told and "data" not in told


@pytest.mark.parametrize(
    "runs",
    [
        [({"dataset": FOLDER}, {"data": "a"}), ({"dataset": FOLDER | {"path": "/others"}}, {"data": "b"})],
        [({"dataset": FOLDER | {"train_limit": 9}, "seed": n}, {"data": str(n)}) for n in range(2)],  # which 9 they are
        [
            ({"dataset": FOLDER, "partition": {"name": "iid"}}, {"data": "a"}),
            ({"dataset": FOLDER, "partition": {"name": "column", "column": "site"}}, {"data": "b"}),  # kept with it
        ],
        [({"dataset": FOLDER}, {"data": "a"}), ({"dataset": FOLDER}, {})],  # of a version that kept none
        [({"model": {"pretrained": False}}, {"weights": None}), ({"model": {"pretrained": False}}, {"weights": None})],
    ],
)
def test_what_has_another_reason_is_not(runs: list[tuple[dict, dict]], tmp_path: Path) -> None:
    assert said(tmp_path, *runs) == ""


@pytest.mark.slow
def test_images_that_were_replaced_between_two_runs_are_seen(tmp_path: Path) -> None:
    keys = [
        "dataset=folder",
        f"dataset.path={tmp_path / 'photos'}",
        "model.image_size=16",
        "engine=inline",
        "clients=2",
    ]
    draw, runs = np.random.default_rng(0), []
    for number in range(2):
        for split, label, each in ((s, c, i) for s in ("train", "test") for c in "ab" for i in range(4)):
            place = tmp_path / "photos" / split / label
            place.mkdir(parents=True, exist_ok=True)
            if split == "test" or not number or each == 0:
                image = Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8))
                image.save(place / f"{each}.png")
        runs.append(flsplit.run([*keys, "rounds=1", "batch_size=4", f"out={tmp_path / f'run{number}'}"]))
    again = flsplit.run([*keys, "rounds=1", "batch_size=4", "seed=1", f"out={tmp_path / 'run2'}"])
    first, second, third = (run.summary["data"] for run in (*runs, again))
    assert first != second == third and again.summary["weights"] is None
    write_report([tmp_path], tmp_path / "report.html")
    assert "but other data:</strong> run0 against run1, run2." in (tmp_path / "report.html").read_text()
