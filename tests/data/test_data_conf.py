from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flsplit.data import DatasetConfig, available_partitions

CONF = Path(__file__).parents[2] / "conf"
DATASETS = sorted((CONF / "dataset").glob("*.yaml"))
PARTITIONS = sorted((CONF / "partition").glob("*.yaml"))


def test_all_names_are_there() -> None:
    assert [file.stem for file in DATASETS] == ["cifar10", "cifar100", "digits", "folder", "food101"]
    assert [file.stem for file in PARTITIONS] == available_partitions()
    assert available_partitions() == ["column", "dirichlet", "iid", "pathological", "quantity", "shards"]


@pytest.mark.parametrize("file", DATASETS, ids=lambda file: file.stem)
def test_dataset_files_make_a_config(file: Path) -> None:
    values = OmegaConf.to_object(OmegaConf.load(file))
    config = DatasetConfig(**values)  # type: ignore[arg-type]
    assert config.name == file.stem
    assert len(config.test_names) == 4  # its own name for the test split is not one that is typed
    assert {"path", "train_limit", "test_limit", "max_side", "augment"} <= set(values)
    assert all(values[key] is None for key in ("path", "train_limit", "test_limit", "max_side"))
    assert config.augment == ("none" if file.stem == "digits" else "paper")
    assert (config.hub is None) == (file.stem in {"digits", "folder"})
