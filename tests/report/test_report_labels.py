"""Labels: what differs, in few words."""

from __future__ import annotations

from pathlib import Path

from make_runs import config

from flsplit.report.labels import describe, folder_names, other_differences, short_labels, text, varied
from flsplit.report.seeds import by_setting


def labels(*configs: dict) -> list[str]:
    return short_labels(configs, [f"run{number}" for number in range(len(configs))])


def strategy(name: str, **options: object) -> dict:
    return {"strategy": {"name": name, **options}}


ADC, BASE = {"name": "adc", "ratio": 0.1}, {"name": "base"}


def test_aspects_that_differ_and_no_others() -> None:
    made = labels(
        config(compressor=ADC, **strategy("splitfed_v1")),
        config(compressor=ADC, **strategy("splitfed_v2")),
        config(compressor=BASE, **strategy("splitfed_v2")),
    )
    assert made == ["adc ratio=0.1 · splitfed_v1", "adc ratio=0.1 · splitfed_v2", "base · splitfed_v2"]


def test_main_parameters_seeds_and_clients() -> None:
    assert labels(config(), config(partition={"name": "dirichlet", "alpha": 10.0}), config(seed=3)) == [
        "dirichlet alpha=0.3 · seed 0",
        "dirichlet alpha=10 · seed 0",
        "dirichlet alpha=0.3 · seed 3",
    ]
    assert labels(config(clients=1), config(clients=100)) == ["1 client", "100 clients"]


def test_other_settings_only_where_they_separate() -> None:
    assert labels(config(lr=1e-4), config(lr=1e-3)) == ["lr=0.0001", "lr=0.001"]
    made = labels(config(seed=0, lr=1e-4), config(seed=1, lr=1e-3))
    assert made == ["seed 0", "seed 1"]
    nested = [config(compressor={**ADC, "rule": rule}) for rule in ("sqrt", "pow_1_5_4_5")]
    assert labels(*nested) == ["rule=sqrt", "rule=pow_1_5_4_5"]
    groups = [config(quantizer={"name": name}) for name in ("none", "uniform")]
    assert labels(*groups) == ["quantizer=none", "quantizer=uniform"]


def test_the_option_of_a_method_that_has_no_main_one() -> None:
    for kind, key, values in (
        ("compressor", "ratio", (0.1, 0.25)),
        ("compressor", "window", (2, 4)),
        ("partition", "alpha", (0.5, 2)),
        ("strategy", "buffer", (2, 4)),
    ):
        own = [config(**{kind: {"name": "mine.own", "flag": True, key: value}}) for value in values]
        assert labels(*own) == [f"mine.own {key}={value}" for value in values]
        assert other_differences(own) == {f"{kind}.{key}": [str(value) for value in values]}
        with_other = [*own, config(**{kind: {"name": "other", key: 0.7}})]
        assert labels(*with_other) == [*labels(*own), "other"]
    rates = [config(compressor={"name": "splitfc", "rate": rate}) for rate in (0.1, 0.3)]
    assert labels(*rates) == ["splitfc rate=0.1", "splitfc rate=0.3"]
    words = [config(compressor={"name": "fedlite", "pieces": 16, "codewords": number}) for number in (4, 8)]
    assert labels(*words, config()) == ["fedlite codewords=4", "fedlite codewords=8", "adc ratio=0.1"]


def test_places_are_no_difference_and_names_are_the_last_resort() -> None:
    assert labels(config(out="a", resume=None), config(out="b", resume="a")) == ["run0", "run1"]
    made = labels(config(seed=1), config(seed=1), config(seed=2))
    assert made == ["seed 1 · run0", "seed 1 · run1", "seed 2"]


def test_a_lone_run_is_called_by_what_it_is() -> None:
    assert labels(config()) == ["adc ratio=0.1 · splitfed_v1"]


def test_what_a_strategy_does_not_use_is_not_told() -> None:
    whole, upper = config(**strategy("fedavg")), config(**strategy("centralized"))
    assert describe(whole, "compressor") == ""
    assert describe(whole, "partition") == "dirichlet alpha=0.3"
    assert [describe(upper, aspect) for aspect in ("compressor", "partition", "clients")] == ["", "", ""]
    assert labels(whole, config(compressor=BASE, **strategy("splitfed_v1"))) == [
        "fedavg",
        "base · splitfed_v1",
    ]


def test_groups_may_be_plain_names() -> None:
    assert describe({"dataset": "cifar10"}, "dataset") == "cifar10"
    assert describe({"model": {"_target_": "timm.models.DeiT"}}, "model") == "DeiT"


def test_only_the_parameter_of_the_kind_is_told() -> None:
    every = {"alpha": 0.3, "shards_per_client": 2, "classes_per_client": 4, "sigma": 1.0, "holdout": 0.0}
    told = {
        name: describe({"partition": {"name": name, **every}}, "partition")
        for name in ("iid", "dirichlet", "shards", "pathological", "quantity")
    }
    assert told == {
        "iid": "iid",
        "dirichlet": "dirichlet alpha=0.3",
        "shards": "shards shards_per_client=2",
        "pathological": "pathological classes_per_client=4",
        "quantity": "quantity sigma=1",
    }
    assert describe({"compressor": {"name": "c3sl", "group": 8}}, "compressor") == "c3sl group=8"
    assert describe({"compressor": {"name": "adc", "ratio": None, "batch_ratio": 0.5}}, "compressor") == "adc"
    assert describe({"compressor": {"name": "mine", "ratio": 0.5}}, "compressor") == "mine"


def test_differences_beyond_the_main_settings() -> None:
    table = other_differences(
        [config(lr=0.1), config(lr=0.2), config(compressor=BASE, dataset={"name": "digits", "path": "/a/b"})]
    )
    assert table == {"dataset.path": ["null", "null", "b"], "lr": ["0.1", "0.2", "0.001"]}


def test_folder_names_take_the_parents_they_need() -> None:
    assert folder_names([Path("/x/a/0"), Path("/x/a/1")]) == ["0", "1"]
    assert folder_names([Path("/x/a/0"), Path("/x/b/0")]) == ["a/0", "b/0"]


def test_what_follows_from_a_data_sets_name_is_no_difference_but_what_a_user_has_set_is() -> None:
    def of(name: str, column: str, seed: int = 0) -> dict:
        return config(dataset={"name": name, "hub": f"someone/{name}", "label_column": column}, seed=seed)

    apart = [of("folder", "label", 0), of("folder", "parity", 1)]
    assert varied(apart) == {"dataset.label_column": ["label", "parity"], "seed": [0, 1]}
    assert other_differences(apart) == {"dataset.label_column": ["label", "parity"]}
    assert labels(of("folder", "label"), of("folder", "parity")) == ["label_column=label", "label_column=parity"]
    assert [len(members) for _, members in by_setting(apart, ["run0", "run1"])] == [1, 1]
    assert list(varied([of("cifar10", "label"), of("cifar100", "fine_label")])) == ["dataset"]
    augmented = [config(augment=name, dataset={"name": "digits", "augment": name}) for name in ("none", "paper")]
    assert list(varied(augmented)) == ["augment"]


def test_a_number_is_the_same_however_it_is_typed() -> None:
    typed = [config(partition={"name": "dirichlet", "alpha": alpha}, seed=seed) for seed, alpha in enumerate((1, 1.0))]
    assert varied(typed) == {"seed": [0, 1]}
    assert other_differences([config(x=[1, 2], flops=1e9), config(x=[1.0, 2.0], flops=1_000_000_000)]) == {}
    assert by_setting(typed, ["run0", "run1"]) == [("adc ratio=0.1 · splitfed_v1", [0, 1])]
    others = [config(x=x) for x in (1, True, "1", None, [1], [1, 2])]
    assert varied(others) == {"x": [1, True, "1", None, [1], [1, 2]]}
    near = [config(lr=lr) for lr in (0.1, 0.1000001)]
    assert varied(near) == {"lr": [0.1, 0.1000001]}


def test_a_list_is_told_as_it_is_typed() -> None:
    assert text(["accuracy", "top5"]) == "[accuracy,top5]" and text([0.5, 2.0]) == "[0.5,2]"
