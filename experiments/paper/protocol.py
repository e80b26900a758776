"""Which runs each figure and table of the paper needs (its Sections 5.3 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import log

from experiments.point import PARAMETERS, Point

METHODS = ("base", "adc", "topk", "randtopk", "c3sl", "bottlenet")
OTHERS = ("fedlite", "splitfc")  # which the paper does not compare; in Figure 4 where they are asked for
RULES = ("sqrt", "pow_1_5_4_5", "release2026")
DATASETS, MODELS = ("cifar100", "food101"), ("deit_tiny", "deit_small")
SCALES = ("full", "medium", "reduced")
SEEDS = (43422, 51, 114)
RATIOS = (0.1, 0.2, 0.5, 0.05, 0.3, 0.4, 0.01)  # the most telling first
CODEWORDS = 16
GROUPS = (8, 4, 2, 16, 32)
GRID = tuple(n / 10 for n in range(1, 11))
BATCHES = (16, 32, 64, 256)  # 128 is Figure 4's
SPLITS = (2, 5, 6, 10)  # 3 is Figure 4's
VECTORS = ("cls_token", "avg_token")  # cls_score is Figure 4's
ROWS: dict[str, tuple[tuple[str, float | None, str | None], ...]] = {
    "medium": (
        ("base", None, None), ("adc", 0.1, "sqrt"), ("adc", 0.2, "sqrt"), ("topk", 0.1, None), ("bottlenet", 0.1, None),
        ("adc", 0.1, "release2026"), ("adc", 0.1, "pow_1_5_4_5"), ("randtopk", 0.1, None), ("c3sl", 8, None),
        ("adc", 0.5, "sqrt"), ("adc", 0.3, "sqrt"), ("adc", 0.05, "sqrt"), ("topk", 0.3, None),
    ),
    "reduced": (
        ("base", None, None), ("adc", 0.1, "sqrt"), ("adc", 0.2, "sqrt"), ("topk", 0.1, None), ("bottlenet", 0.1, None),
        ("adc", 0.1, "release2026"), ("adc", 0.1, "pow_1_5_4_5"), ("randtopk", 0.1, None), ("c3sl", 8, None),
        ("adc", 0.2, "release2026"), ("adc", 0.2, "pow_1_5_4_5"),
    ),
}  # fmt: skip
FIG5, FIG6, FIG7, FIG8 = (0.05, 0.1, 0.5), (0.05, 0.1, 0.2), (0.1, 0.2), (0.01, 0.2)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of the paper is wanted; an empty choice is all that the figure has.

    Attributes:
        scale: of `SCALES`.
        datasets: of the figure's.
        models: of the figure's.
        methods: of the figure's.
        ratios: parameters near these (k/D for Top-K, 1/R for C3-SL).
        rules: of ADC; if empty, its `sqrt`, or those of the list of rows.
        seeds: one run each.
        options: overrides for every run.
    """

    scale: str = "full"
    datasets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    rules: tuple[str, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    options: tuple[str, ...] = field(default=())


def points(name: str, choice: Choice) -> list[Point]:
    """The runs behind a figure or table, in the order in which they are to be run.

    Args:
        name: `rows`, `fig1`, `fig3` to `fig8` or `table2`.
        choice: what of it.
    """
    return list(dict.fromkeys(_FIGURES[name](choice)))


def _panels(choice: Choice, datasets: Sequence[str], models: Sequence[str]) -> list[tuple[str, str]]:
    if choice.scale != "full":
        datasets, models = ("cifar100",), ("deit_tiny",)
    return list(product(choice.datasets or datasets, choice.models or models))


def _make(
    choice: Choice, dataset: str, model: str, seed: int, method: str, ratios: Sequence[float], *options: str
) -> Iterable[Point]:
    """A method at those of its parameters that are wanted."""
    rules = choice.rules or RULES[:1] if method == "adc" else (None,)
    for value, rule in product(values(method, choice.ratios or ratios), rules):
        yield Point(
            scale=choice.scale, dataset=dataset, model=model, method=method, value=value, rule=rule, seed=seed,
            options=(*options, *choice.options),
        )  # fmt: skip


def values(method: str, ratios: Sequence[float]) -> list[float | None]:
    """Parameters of a method near `ratios`: of C3-SL the R whose 1/R is nearest."""
    if method not in PARAMETERS:
        return [None]
    if method == "fedlite":
        return [CODEWORDS]
    if method != "c3sl":
        return list(ratios)
    if set(ratios) == set(RATIOS):
        return list(GROUPS)
    return list(dict.fromkeys(min(GROUPS, key=lambda group: abs(log(group * ratio))) for ratio in ratios))


def _methods(choice: Choice, own: Sequence[str]) -> list[str]:
    return [method for method in own if not choice.methods or method in choice.methods]


def _accuracy_over_xi(choice: Choice, datasets: Sequence[str], models: Sequence[str]) -> Iterable[Point]:
    methods = [*_methods(choice, METHODS), *(method for method in OTHERS if method in choice.methods)]
    for (dataset, model), seed, method in product(_panels(choice, datasets, models), choice.seeds, methods):
        yield from _make(choice, dataset, model, seed, method, RATIOS)


def _fig3(choice: Choice) -> Iterable[Point]:
    for (dataset, model), seed, batch, token in product(
        _panels(choice, DATASETS, MODELS[:1]), choice.seeds, GRID, GRID
    ):
        options = (f"compressor.batch_ratio={batch}", f"compressor.token_ratio={token}", "partition.holdout=0.2")
        yield Point(
            scale=choice.scale, dataset=dataset, model=model, method="adc", seed=seed,
            options=(*options, *choice.options),
        )  # fmt: skip


def _fig5(choice: Choice) -> Iterable[Point]:
    panels = _panels(choice, DATASETS[1:], MODELS[:1])
    for (dataset, model), seed, method in product(panels, choice.seeds, _methods(choice, METHODS)):
        yield from _make(choice, dataset, model, seed, method, FIG5)


def _fig6(choice: Choice) -> Iterable[Point]:
    for (dataset, model), seed in product(_panels(choice, DATASETS, MODELS[:1]), choice.seeds):
        yield from _make(choice, dataset, model, seed, "adc", FIG6)
        for batch in BATCHES:
            yield from _make(choice, dataset, model, seed, "adc", FIG6, f"batch_size={batch}")


def _fig7(choice: Choice) -> Iterable[Point]:
    panels, own = _panels(choice, DATASETS, MODELS[:1]), _methods(choice, ("adc", "topk", "bottlenet"))
    for (dataset, model), seed, method in product(panels, choice.seeds, own):
        yield from _make(choice, dataset, model, seed, method, FIG7)
        for split in SPLITS:
            yield from _make(choice, dataset, model, seed, method, FIG7, f"model.split_point={split}")


def _fig8(choice: Choice) -> Iterable[Point]:
    for dataset, model in _panels(choice, DATASETS[1:], MODELS[:1]):
        yield from _make(choice, dataset, model, choice.seeds[0], "adc", FIG8)


def _table2(choice: Choice) -> Iterable[Point]:
    for (dataset, model), seed in product(_panels(choice, DATASETS, MODELS[:1]), choice.seeds):
        yield from _make(choice, dataset, model, seed, "adc", FIG6)
        for vector in VECTORS:
            yield from _make(choice, dataset, model, seed, "adc", FIG6, f"compressor.vector={vector}")


def _rows(choice: Choice) -> Iterable[Point]:
    """Those of DeiT-T on CIFAR-100 that say most, the most telling first; at the full scale all of Figure 4 follow."""
    telling = [row for row in ROWS["medium" if choice.scale == "full" else choice.scale] if _of_choice(row, choice)]
    panels = _panels(choice, DATASETS[:1], MODELS[:1])
    for (dataset, model), seed, (method, value, rule) in product(panels, choice.seeds, telling):
        yield Point(
            scale=choice.scale, dataset=dataset, model=model, method=method, value=value, rule=rule, seed=seed,
            options=choice.options,
        )  # fmt: skip
    if choice.scale == "full":
        yield from _accuracy_over_xi(choice, DATASETS, MODELS)


def _of_choice(row: tuple[str, float | None, str | None], choice: Choice) -> bool:
    method, value, rule = row
    return (
        method in _methods(choice, METHODS)
        and (not choice.ratios or value in values(method, choice.ratios))
        and (not choice.rules or rule is None or rule in choice.rules)
    )


_FIGURES: dict[str, Callable[[Choice], Iterable[Point]]] = {
    "rows": _rows,
    "fig1": lambda choice: _accuracy_over_xi(choice, DATASETS[:1], MODELS[1:]),
    "fig3": _fig3,
    "fig4": lambda choice: _accuracy_over_xi(choice, DATASETS, MODELS),
    "fig5": _fig5,
    "fig6": _fig6,
    "fig7": _fig7,
    "fig8": _fig8,
    "table2": _table2,
}
