from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flsplit.data import DatasetConfig, PartitionConfig, validate

CONF = Path(__file__).parents[2] / "conf"
DATASETS = sorted((CONF / "dataset").glob("*.yaml"))
PARTITIONS = sorted((CONF / "partition").glob("*.yaml"))


def test_all_names_are_there() -> None:
    assert [file.stem for file in DATASETS] == ["cifar10", "cifar100", "digits", "folder", "food101"]
    assert [file.stem for file in PARTITIONS] == ["dirichlet", "iid", "pathological", "quantity", "shards"]


@pytest.mark.parametrize("file", DATASETS, ids=lambda file: file.stem)
def test_dataset_files_make_a_config(file: Path) -> None:
    values = OmegaConf.to_object(OmegaConf.load(file))
    config = DatasetConfig(**values)  # type: ignore[arg-type]
    assert config.name == file.stem
    assert {"path", "train_limit", "test_limit", "max_side", "augment"} <= set(values)
    assert all(values[key] is None for key in ("path", "train_limit", "test_limit", "max_side"))
    assert config.augment == ("none" if file.stem == "digits" else "paper")
    assert (config.hub is None) == (file.stem in {"digits", "folder"})


@pytest.mark.parametrize("file", PARTITIONS, ids=lambda file: file.stem)
def test_partition_files_make_a_config(file: Path) -> None:
    values = OmegaConf.to_object(OmegaConf.load(file))
    config = PartitionConfig(**values)  # type: ignore[arg-type]
    assert config.name == file.stem
    # The files and the dataclass have the same defaults.
    assert config == PartitionConfig(name=file.stem)
    validate(config, 10, samples=100, classes=10)


def test_every_option_of_a_partition_is_in_a_file() -> None:
    named = {key for file in PARTITIONS for key in OmegaConf.load(file)}
    assert named == {field.name for field in fields(PartitionConfig)}
