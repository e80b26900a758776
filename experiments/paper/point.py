"""One training run of the paper's protocol: what is trained, and how flsplit is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

import compressors
from compressors import BatchShape
from flsplit.ledger import PriceList, Tally, base_layout

PARAMETERS = {"adc": "ratio", "bottlenet": "ratio", "topk": "rate", "randtopk": "rate", "c3sl": "group"}
BATCH, SPLIT_POINT, BASE_EPOCHS = 128, 3, 10
REDUCED_IMAGES, REDUCED_SIZE, EVALUATIONS = 2500, 96, 10
_IMAGES = {"cifar100": (50_000, 100), "food101": (75_750, 101)}  # of the training set, and classes
_WIDTH, _PATCH = {"deit_tiny": 192, "deit_small": 384}, 16


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run, told apart from all others by these values.

    Attributes:
        scale: `full`, the paper's protocol, or `reduced`, which fits two CPU cores.
        dataset: `cifar100` or `food101`.
        model: `deit_tiny` or `deit_small`.
        method: a compressor.
        value: its parameter (xi, k/D or R); None for `base` and where `options` say it.
        rule: how ADC divides its ratio; None for other methods.
        seed: of everything.
        options: what else differs from the protocol, as overrides.
    """

    scale: str
    dataset: str
    model: str
    method: str
    value: float | None = None
    rule: str | None = None
    seed: int
    options: tuple[str, ...] = ()

    @property
    def parameter(self) -> str:
        """The column `parameter` of results.csv: the value, and whatever else differs from the protocol."""
        return " ".join([*([] if self.value is None else [f"{self.value:g}"]), *self.options])

    @property
    def slug(self) -> str:
        """A name for folders and files."""
        words = [self.scale, self.dataset, self.model, self.method, self.rule, self.parameter, f"s{self.seed}"]
        text = "-".join(word for word in words if word)
        return "".join(c if c.isalnum() or c in "-._" else "_" for c in text)

    def method_overrides(self) -> list[str]:
        """The compressor and its options."""
        keys = [f"compressor={self.method}"]
        if self.value is not None:
            keys.append(f"compressor.{PARAMETERS[self.method]}={self.value:g}")
        if self.rule is not None:
            keys.append(f"compressor.rule={self.rule}")
        return keys

    def overrides(self, *, data: str | None, weights: str | None) -> list[str]:
        """The run on flsplit's command line.

        Args:
            data: a local copy of the dataset; None for the Hub.
            weights: a file with pretrained weights; None for the Hub.
        """
        keys = ["experiment=paper", f"dataset={self.dataset}", f"model={self.model}", f"seed={self.seed}"]
        keys += self.method_overrides()
        if self.scale == "reduced":
            keys += [f"dataset.train_limit={REDUCED_IMAGES}", f"model.image_size={REDUCED_SIZE}"]
            keys += [f"eval_every={max(1, self.rounds() // EVALUATIONS)}"]
        for key, path in (("dataset.path", data), ("model.pretrained", weights)):
            if path is not None:
                keys.append(f'{key}="{path}"')
        return keys + list(self.options)

    def step(self) -> Tally:
        """The price of one of its training steps."""
        return PriceList(self._compressor()).step(self._shape())

    def xi_nominal(self) -> float:
        """The ratio that was asked for: the paper's Table 1, mean of both ways."""
        return sum(self._compressor().nominal_ratios(self._shape())) / 2

    def rounds(self) -> int:
        """Epochs that the budget buys, the last one perhaps not whole."""
        images = REDUCED_IMAGES if self.scale == "reduced" else _IMAGES[self.dataset][0]
        batch, step = self._shape().batch, self.step()
        base = base_layout(self._shape())
        gamma = BASE_EPOCHS * images * (base.uplink_bits + base.downlink_bits) / batch
        return math.ceil(gamma / (step.uplink_bits + step.downlink_bits) / (images // batch))

    def _compressor(self) -> compressors.Compressor:
        options: dict[str, object] = {}
        if self.value is not None:
            name = PARAMETERS[self.method]
            options[name] = int(self.value) if name == "group" else self.value
        if self.rule is not None:
            options["rule"] = self.rule
        for option in self.options:
            key, _, value = option.partition("=")
            if key.startswith("compressor."):
                options[key.removeprefix("compressor.")] = _number_or_text(value)
        return compressors.build(self.method, **options)

    def _shape(self) -> BatchShape:
        size = REDUCED_SIZE if self.scale == "reduced" else 224
        given = dict(option.split("=", 1) for option in self.options)
        return BatchShape(
            batch=int(given.get("batch_size", BATCH)), tokens=(size // _PATCH) ** 2 + 1, width=_WIDTH[self.model],
            classes=_IMAGES[self.dataset][1],
        )  # fmt: skip


def _number_or_text(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text
