from pathlib import Path

import pandas as pd
import pytest

from experiments.dropout import __main__ as dropout


@pytest.mark.slow
def test_the_same_clients_are_away_with_and_without_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropout, "DROPOUT", (0.0, 0.5))
    arguments = ["--seeds", "3", "--runs", str(tmp_path / "runs"), "--home", str(tmp_path)]
    for key in ("rounds=3", "clients=4", "dataset.train_limit=80", "dataset.test_limit=40"):
        arguments += ["--set", key]
    assert dropout.main(arguments) == 0
    table = pd.read_csv(tmp_path / "results.csv")
    assert table.method.tolist() == ["base", "adc"] * 2 and (tmp_path / "accuracy.png").stat().st_size > 5000
    away = table.set_index(["method", "dropout"]).away
    assert (away.loc[:, 0.0] == 0).all() and away["base", 0.5] == away["adc", 0.5] > 0
    bits = table.set_index(["method", "dropout"]).uplink_bits
    assert (bits["base"] > bits["adc"]).all() and bits["base", 0.0] > bits["base", 0.5]
    stamp = (tmp_path / "runs" / "adc-0.5-s3" / "summary.json").stat().st_mtime_ns
    assert dropout.main(arguments) == 0  # nothing is run again
    assert (tmp_path / "runs" / "adc-0.5-s3" / "summary.json").stat().st_mtime_ns == stamp
