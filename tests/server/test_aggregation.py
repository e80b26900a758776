"""Averages: exact for one client, in order for many, and each Flower strategy held against its definition."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity

from flsplit.errors import RunFailed, UserError
from flsplit.server import aggregation
from flsplit.server.aggregation import AGGREGATORS, Aggregator, RunningMean
from flsplit.streams import torch_stream

GIVEN: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavgm": {"server_learning_rate": 0.5, "server_momentum": 0.9},
    "fedadam": {"eta": 0.01, "beta_1": 0.8, "beta_2": 0.95, "tau": 0.002},
    "fedprox": {"proximal_mu": 0.01},
    "fedmedian": {},
    "fedtrimmedavg": {"beta": 0.34},
    "krum": {},
}
WEIGHTS = (3, 1, 10)


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower makes messages only in a process that has been told of a run."""
    for key in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, key, 1)


def noise(*key: Any, size: int = 1000) -> torch.Tensor:
    return torch.randn(size, generator=torch_stream(0, "v", *key))


def vectors(count: int) -> list[torch.Tensor]:
    return [noise(i) * 10.0 ** (i - 2) for i in range(count)]


def mean_of(pairs: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
    mean = RunningMean()
    for vector, weight in pairs:
        mean.add([vector], weight)
    value = mean.value()
    assert value is not None
    return value


def step(
    aggregator: Aggregator, number: int, current: torch.Tensor, pairs: list[tuple[torch.Tensor, int]]
) -> torch.Tensor:
    collected = aggregator.collect()
    assert collected.empty
    for vector, weight in pairs:
        collected.add([vector], weight)
    assert not collected.empty
    before = current.clone()
    new = aggregator.aggregate(number, current, collected)
    assert new.dtype == torch.float32 and new.shape == current.shape and torch.equal(current, before)
    return new


def clients(number: int, current: torch.Tensor, count: int = 3) -> list[torch.Tensor]:
    """What `count` clients make of `current`: all move alike, and each by itself."""
    return [current + 0.01 * noise("all", size=len(current)) + 0.02 * noise(number, c, size=len(current))
            for c in range(count)]  # fmt: skip


def bits(vector: torch.Tensor) -> torch.Tensor:
    return vector.view(torch.int32)


class Defined:
    """The aggregators by their definitions, in fp64; momentum and moments go on from round to round."""

    def __init__(self) -> None:
        self.v = self.m = np.zeros(1)

    def __call__(self, name: str, number: int, w: np.ndarray, models: np.ndarray) -> np.ndarray:
        """From the global model (P,) and the clients' (3, P) to the next global model (P,)."""
        mean = np.average(models, axis=0, weights=WEIGHTS)
        if name in ("fedavg", "fedprox"):
            return mean
        if name == "fedavgm":
            self.v = 0.9 * self.v + (w - mean)
            return w - 0.5 * self.v
        if name == "fedadam":
            d = mean - w
            self.m = 0.8 * self.m + 0.2 * d
            self.v = 0.95 * self.v + 0.05 * d**2
            rate = 0.01 * math.sqrt(1 - 0.95 ** (number + 1)) / (1 - 0.8 ** (number + 1))
            return w + rate * self.m / (np.sqrt(self.v) + 0.002)
        assert name in ("fedmedian", "fedtrimmedavg")  # of three, all but the least and the most is the median
        return np.sort(models, axis=0)[1]


@pytest.mark.parametrize("part", [1 << 20, 300])
@pytest.mark.parametrize("name", [name for name in AGGREGATORS if name != "krum"])
def test_three_clients_and_three_rounds_by_definition(name: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "_PART", part)
    aggregator, defined, current = Aggregator(name, GIVEN[name]), Defined(), noise("start")
    for number in (1, 2, 3):
        models = clients(number, current)
        new = step(aggregator, number, current, list(zip(models, WEIGHTS)))
        expected = defined(name, number, current.double().numpy(), torch.stack(models).double().numpy())
        np.testing.assert_allclose(new.numpy(), expected, rtol=1e-6, atol=1e-6)  # the clients move by 1e-2
        current = new


def test_a_trimmed_mean_is_the_plain_mean_of_what_is_left() -> None:
    current = noise("start")
    models = clients(1, current, count=5)
    new = step(Aggregator("fedtrimmedavg", {}), 1, current, [(model, 1 + i) for i, model in enumerate(models)])
    expected = np.sort(torch.stack(models).double().numpy(), axis=0)[1:4].mean(axis=0)
    np.testing.assert_allclose(new.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_the_median_of_an_even_count_is_halfway() -> None:
    current = noise("start")
    models = clients(1, current, count=4)
    new = step(Aggregator("fedmedian", {}), 1, current, [(model, 1) for model in models])
    expected = np.median(torch.stack(models).double().numpy(), axis=0)
    np.testing.assert_allclose(new.numpy(), expected, rtol=1e-6, atol=1e-7)


def krum_scores(models: list[torch.Tensor], malicious: int) -> np.ndarray:
    stack = torch.stack(models).double().numpy()
    squares = ((stack[:, None] - stack[None]) ** 2).sum(-1)
    others = [np.delete(row, i) for i, row in enumerate(squares)]
    return np.array([np.sort(row)[: len(models) - malicious - 2].sum() for row in others])


@pytest.mark.parametrize(("count", "malicious"), [(3, 0), (5, 1), (8, 2)])
def test_krum_is_the_client_with_the_nearest_neighbours(count: int, malicious: int) -> None:
    aggregator, current = Aggregator("krum", {"num_malicious_nodes": malicious}), noise("start")
    for number in (1, 2):
        models = clients(number, current, count=count)
        for bad in range(malicious):
            models[bad] = models[bad] + 1000
        scores = krum_scores(models, malicious)
        new = step(aggregator, number, current, [(model, 1 + i) for i, model in enumerate(models)])
        [chosen] = [i for i, model in enumerate(models) if torch.equal(new, model)]
        assert chosen >= malicious and scores[chosen] <= scores.min() * (1 + 1e-6)  # of three, the nearest two tie
        current = new


def test_krum_finds_small_distances_between_large_models() -> None:
    for trial in range(10):
        current = 1000 * noise("large", trial)
        models = [current + 0.01 * noise("small", trial, c) for c in range(7)]
        scores = krum_scores(models, 1)
        new = step(Aggregator("krum", {"num_malicious_nodes": 1}), 1, current, [(model, 1) for model in models])
        assert torch.equal(new, models[int(scores.argmin())])


def test_krum_never_chooses_a_model_that_is_no_number() -> None:
    current = noise("start")
    models = [torch.full_like(current, math.nan), *clients(1, current, count=4)]
    new = step(Aggregator("krum", {"num_malicious_nodes": 1}), 1, current, [(model, 1) for model in models])
    assert torch.isfinite(new).all()


@pytest.mark.parametrize("weight", [1, 7, 49_999])
def test_the_mean_of_one_is_itself_to_the_bit(weight: int) -> None:
    [vector] = vectors(1)
    vector[:2] = torch.tensor([-0.0, 1e-45])
    assert torch.equal(bits(mean_of([(vector, weight)])), bits(vector))
    for name in ("fedavg", "fedprox"):
        aggregator = Aggregator(name, GIVEN[name])
        arrays, _ = aggregator._ask(1, [(vector, weight)])  # Flower, which need not be asked since it says the same
        for new in (
            step(aggregator, 1, noise("start"), [(vector, weight)]),
            *map(torch.tensor, arrays.to_numpy_ndarrays()),
        ):
            assert torch.equal(bits(new), bits(vector))


def test_the_mean_is_weighted_by_samples() -> None:
    pairs = list(zip(vectors(4), (3, 1, 10, 2)))
    expected = sum(v.double() * w for v, w in pairs) / 16
    torch.testing.assert_close(mean_of(pairs).double(), expected, rtol=1e-7, atol=0)


def test_nothing_has_no_mean() -> None:
    assert RunningMean().value() is None and RunningMean().empty


@pytest.mark.parametrize("name", AGGREGATORS)
def test_models_without_samples_count_for_nothing(name: str) -> None:
    start = noise("start")
    pairs = list(zip(clients(1, start), WEIGHTS))
    extra = [*pairs, (start + math.nan, 0)]
    options = GIVEN[name]
    assert torch.equal(
        step(Aggregator(name, options), 1, start, pairs), step(Aggregator(name, options), 1, start, extra)
    )
    collected = Aggregator(name, options).collect()
    collected.add([start], 0)
    assert collected.empty


def test_a_mean_is_of_one_model_however_many_clients() -> None:
    for name, kind in AGGREGATORS.items():
        collected = Aggregator(name, GIVEN[name]).collect()
        for vector, weight in zip(vectors(3), WEIGHTS):
            collected.add([vector], weight)
        assert len(collected.replies()) == (3 if kind.compares else 1)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_round_does_not_change_what_was_collected(name: str) -> None:
    start, aggregator = noise("start"), Aggregator(name, GIVEN[name])
    collected = aggregator.collect()
    for vector, weight in zip(clients(1, start), WEIGHTS):
        collected.add([vector], weight)
    before = [(vector.clone(), weight) for vector, weight in collected.replies()]
    aggregator.aggregate(1, start, collected).fill_(0)
    for (vector, weight), (old, old_weight) in zip(collected.replies(), before, strict=True):
        assert torch.equal(vector, old) and weight == old_weight


@pytest.mark.parametrize("part", [1 << 20, 300])
@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_resumed_aggregator_goes_on_to_the_bit(name: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "_PART", part)

    def rounds(aggregator: Aggregator, numbers: range, current: torch.Tensor) -> torch.Tensor:
        for number in numbers:
            current = step(aggregator, number, current, list(zip(clients(number, current), WEIGHTS)))
        return current

    whole = Aggregator(name, GIVEN[name])
    assert whole.state() == {}
    half = rounds(whole, range(1, 3), noise("start"))
    state = whole.state()
    assert set(state) == {"fedavgm": {"momentum_vector"}, "fedadam": {"m_t", "v_t"}}.get(name, set())
    assert all(tensor.shape == half.shape and tensor.any() for tensor in state.values())
    kept = {key: tensor.clone() for key, tensor in state.items()}
    expected = rounds(whole, range(3, 5), half)
    assert all(torch.equal(tensor, kept[key]) for key, tensor in state.items())  # a copy, not a view

    resumed = Aggregator(name, GIVEN[name])
    resumed.load(state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in resumed.state().items())
    assert torch.equal(rounds(resumed, range(3, 5), half), expected)
    resumed.load({})
    assert resumed.state() == {}
    if state:
        assert not torch.equal(rounds(resumed, range(3, 5), half), expected)


def test_the_state_of_another_is_refused() -> None:
    with pytest.raises(RunFailed, match=r"^this is not the state of strategy.aggregator=fedavg: it holds m_t$"):
        Aggregator("fedavg", {}).load({"m_t": noise(0)})
    with pytest.raises(RunFailed, match=r"not the state of strategy.aggregator=fedadam"):
        Aggregator("fedadam", {}).load({"m_t": noise(0)})


@pytest.mark.parametrize(
    ("name", "options", "fewest"),
    [
        ("fedavg", {}, 1),
        ("fedavgm", {}, 1),
        ("fedmedian", {}, 1),
        ("fedtrimmedavg", {}, 5),
        ("fedtrimmedavg", {"beta": 0}, 1),
        ("fedtrimmedavg", {"beta": 1 / 49}, 50),  # int(49 * (1 / 49)) is 0
        ("krum", {}, 3),
        ("krum", {"num_malicious_nodes": 2}, 7),
    ],
)
def test_too_few_models_end_the_run(name: str, options: dict[str, Any], fewest: int) -> None:
    aggregator, start = Aggregator(name, options), noise("start", size=10)
    assert aggregator.fewest == fewest
    enough = [(model, 1) for model in clients(1, start, count=fewest)]
    step(aggregator, 1, start, enough)
    collected = aggregator.collect()
    for vector, weight in enough[:-1]:
        collected.add([vector], weight)
    message = (
        rf"^strategy.aggregator={name}.* needs the models of at least {fewest} clients in a round, got {fewest - 1} "
    )
    with pytest.raises(RunFailed, match=message + "in round 4$"):
        aggregator.aggregate(4, start, collected)


def test_every_option_of_flower_is_taken_or_ours() -> None:
    ours = set(inspect.signature(AGGREGATORS["fedavg"].strategy).parameters)
    for kind in AGGREGATORS.values():
        assert {field.name for field in fields(kind.options)} == set(inspect.signature(kind.strategy).parameters) - ours


def test_the_proximal_term_is_the_clients() -> None:
    assert Aggregator("fedprox", {"proximal_mu": 1}).proximal_mu == 1.0
    assert Aggregator("fedprox", {"proximal_mu": "1e-3"}).proximal_mu == 1e-3  # YAML 1.1 reads 1e-3 as text
    assert {Aggregator(name, GIVEN[name]).proximal_mu for name in AGGREGATORS if name != "fedprox"} == {0.0}


ARGS = "strategy.aggregator_args"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedagv", {}, r"strategy.aggregator must be one of fedavg, .*, krum, got 'fedagv'; did you mean fedavg\?"),
        ("fedavg", {"fraction_train": 0.5}, f"{ARGS}.fraction_train is no option of fedavg, which takes none"),
        ("fedavg", {"nonsense": 1}, f"{ARGS}.nonsense is no option of fedavg, which takes none"),
        (
            "fedadam",
            {"beta1": 0.9},
            rf"{ARGS}.beta1 is no option of fedadam, which takes eta, .*; did you mean beta_1\?",
        ),
        ("krum", {"num_nodes_to_select": 2}, f"{ARGS}.num_nodes_to_select is no option of krum, which takes num_mal.*"),
        ("fedprox", {}, f"{ARGS}.proximal_mu is missing: fedprox needs a number of at least 0, such as 0.01"),
        ("fedprox", {"proximal_mu": None}, f"{ARGS}.proximal_mu must be a number, got null"),
        ("fedprox", {"proximal_mu": -0.1}, f"{ARGS}.proximal_mu must be at least 0, got -0.1"),
        ("fedprox", {"proximal_mu": math.inf}, f"{ARGS}.proximal_mu must be at least 0, got inf"),
        ("fedavgm", {"server_momentum": "much"}, f"{ARGS}.server_momentum must be a number, got 'much'"),
        ("fedavgm", {"server_momentum": 1}, f"{ARGS}.server_momentum must be at least 0 and below 1, got 1.0"),
        ("fedavgm", {"server_momentum": -0.5}, f"{ARGS}.server_momentum must be at least 0 and below 1, got -0.5"),
        ("fedavgm", {"server_learning_rate": 0}, f"{ARGS}.server_learning_rate must be a number above 0, got 0.0"),
        ("fedadam", {"eta": 0}, f"{ARGS}.eta must be a number above 0, got 0.0"),
        ("fedadam", {"eta": True}, f"{ARGS}.eta must be a number, got true"),
        ("fedadam", {"eta_l": -1}, f"{ARGS}.eta_l must be a number above 0, got -1.0"),
        ("fedadam", {"tau": math.nan}, f"{ARGS}.tau must be a number above 0, got nan"),
        ("fedadam", {"beta_1": 1.0}, f"{ARGS}.beta_1 must be at least 0 and below 1, got 1.0"),
        ("fedadam", {"beta_2": -0.1}, f"{ARGS}.beta_2 must be at least 0 and below 1, got -0.1"),
        ("fedtrimmedavg", {"beta": 0.5}, f"{ARGS}.beta must be at least 0 and below 0.5, got 0.5"),
        ("fedtrimmedavg", {"beta": [0.1]}, rf"{ARGS}.beta must be a number, got \[0.1\]"),
        ("krum", {"num_malicious_nodes": -1}, f"{ARGS}.num_malicious_nodes must be at least 0, got -1"),
        ("krum", {"num_malicious_nodes": 1.5}, f"{ARGS}.num_malicious_nodes must be a whole number, got 1.5"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$") as caught:
        Aggregator(name, options)
    assert "\n" not in str(caught.value)
