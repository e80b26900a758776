"""One training run in the manner of the ADC paper: what is trained, and how flsplit is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

import compressors
from compressors import BatchShape
from flsplit.ledger.prices import PriceList, Tally, base_layout
from flsplit.split.stages import Stages

PARAMETERS = {"adc": "ratio", "bottlenet": "ratio", "topk": "rate", "randtopk": "rate", "c3sl": "group"}
PARAMETERS |= {"fedlite": "codewords", "splitfc": "rate"}
_IMAGES = {"cifar100": 50_000, "food101": 75_750}  # of the training set
_CLASSES = {"cifar100": 100, "food101": 101, "coarse_label": 20}  # of a data set, or of another column of its labels
_WIDTH, _PATCH = {"deit_tiny": 192, "deit_small": 384}, 16


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large runs are.

    Attributes:
        size: side of the model's input, pixels.
        images: training images; None for all.
        test_images: of the test set; None for all.
        batch: samples per step.
        base_epochs: the budget, in epochs without compression.
        count_models: whether models that move count towards the budget.
        epochs: rounds of every run, whatever it sends; None where the budget says how many.
        counts_epochs: whether runs end after the rounds that the budget buys for their method alone, whatever a
            quantiser or a channel makes of the bits; otherwise with the budget.
        most_epochs: rounds after which a run ends although bits are left; None where only the budget ends it.
        evaluations: about how often a run is evaluated; None for every round.
        local_epochs: passes over a client's samples in a round.
        lr: Adam's step size; None for the model's own.
        precision: `fp32` or `bf16`.
        labels: the column that says what is learned; None for the data set's own.
    """

    size: int = 224
    images: int | None = None
    test_images: int | None = None
    batch: int = 128
    base_epochs: int = 10
    count_models: bool = False
    epochs: int | None = None
    counts_epochs: bool = False
    most_epochs: int | None = None
    evaluations: int | None = None
    local_epochs: int = 1
    lr: float | None = None
    precision: str = "fp32"
    labels: str | None = None


SCALES = {
    "full": Scale(),  # the paper's protocol
    "medium": Scale(size=96, images=10_000, evaluations=10),  # the paper on two CPU cores, an hour or two each
    "reduced": Scale(size=96, images=2500, evaluations=10),  # and half an hour each
    # quantisers and channels, on two CPU cores: a few minutes each, on what is learned soonest
    "link-cpu": Scale(
        size=64,
        images=2560,
        test_images=4000,
        batch=32,
        base_epochs=4,
        counts_epochs=True,
        evaluations=1,
        labels="coarse_label",
    ),
    # ten clients of 256 images whose devices differ, with LoRA
    "time-cpu": Scale(
        size=64,
        images=2560,
        test_images=2000,
        batch=32,
        epochs=8,
        local_epochs=2,
        lr=3e-3,
        labels="coarse_label",
    ),
    # many clients of 1,000 or 200 images, pretrained: four epochs without compression, at most 30 with
    "edge-cpu": Scale(
        size=96,
        images=10_000,
        test_images=4000,
        batch=64,
        base_epochs=4,
        count_models=True,
        most_epochs=30,
        evaluations=4,
        lr=3e-4,
    ),
    "study": Scale(batch=64, count_models=True, evaluations=20),  # many clients, all of CIFAR-100
    "study-cpu": Scale(
        size=96,
        images=2500,
        test_images=2000,
        batch=16,
        base_epochs=15,
        count_models=True,
        local_epochs=2,
        lr=2e-4,
        precision="bf16",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run, told apart from all others by these values.

    Attributes:
        scale: a key of `SCALES`.
        dataset: `cifar100` or `food101`.
        model: `deit_tiny` or `deit_small`.
        method: a compressor.
        value: its parameter (xi, k/D or R); None for `base` and where `options` say it.
        rule: how ADC divides its ratio; None for other methods.
        seed: of everything.
        options: what else differs from the protocol, as overrides.
        clients: how many there are; with more than one, `partition`, `alpha` and `strategy` say the rest.
        strategy: of split-federated learning.
        partition: how samples are divided.
        alpha: of a Dirichlet partition.
    """

    scale: str
    dataset: str
    model: str
    method: str
    value: float | None = None
    rule: str | None = None
    seed: int
    options: tuple[str, ...] = ()
    clients: int = 1
    strategy: str = "splitfed_v1"
    partition: str = "iid"
    alpha: float | None = None

    @property
    def key(self) -> dict[str, str | int | float | None]:
        """The columns of results.csv that tell it apart."""
        return {
            "scale": self.scale, "dataset": self.dataset, "model": self.model, "method": self.method,
            "parameter": self.parameter, "rule": self.rule, "clients": self.clients, "strategy": self.strategy,
            "partition": self.partition, "alpha": self.alpha, "seed": self.seed, "precision": self.precision,
        }  # fmt: skip

    @property
    def precision(self) -> str:
        """`fp32` or `bf16`; a column of its own."""
        return dict(option.split("=", 1) for option in self.options).get("precision", SCALES[self.scale].precision)

    @property
    def parameter(self) -> str:
        """The column `parameter` of results.csv: the value, and whatever else differs from the protocol."""
        others = [option for option in self.options if not option.startswith("precision=")]
        return " ".join([*([] if self.value is None else [f"{self.value:g}"]), *others])

    @property
    def slug(self) -> str:
        """A name for folders and files."""
        words = [self.scale, self.dataset, self.model, self.method, self.rule, self.parameter]
        if self.clients > 1:
            words += [f"n{self.clients}", self.strategy, self.partition]
            words += [None if self.alpha is None else f"{self.alpha:g}"]
        words += [None if self.precision == SCALES[self.scale].precision else self.precision, f"s{self.seed}"]
        text = "-".join(word for word in words if word)
        return "".join(c if c.isalnum() or c in "-._" else "_" for c in text)

    def overrides(self, *, data: str | None, weights: str | None) -> list[str]:
        """The run on flsplit's command line.

        Args:
            data: a local copy of the dataset; None for the Hub.
            weights: a file with pretrained weights; None for the Hub.
        """
        scale = SCALES[self.scale]
        keys: dict[str, object] = {
            "experiment": "paper", "dataset": self.dataset, "model": self.model, "seed": self.seed,
            "compressor": self.method,
        }  # fmt: skip
        if self.value is not None:
            keys[f"compressor.{PARAMETERS[self.method]}"] = f"{self.value:g}"
        if self.rule is not None:
            keys["compressor.rule"] = self.rule
        keys["model.image_size"], keys["batch_size"] = scale.size, scale.batch
        if scale.epochs is None and not scale.counts_epochs:
            keys["budget.base_epochs"], keys["budget.count_models"] = scale.base_epochs, scale.count_models
            if scale.most_epochs is not None:
                keys["rounds"] = scale.most_epochs
        else:
            keys["budget.base_epochs"], keys["rounds"] = "null", self.rounds()
        keys["local_epochs"], keys["precision"] = scale.local_epochs, scale.precision
        if scale.lr is not None:
            keys["lr"] = scale.lr
        if scale.images is not None:
            keys["dataset.train_limit"] = scale.images
        if scale.test_images is not None:
            keys["dataset.test_limit"] = scale.test_images
        if scale.labels is not None:
            keys["dataset.label_column"] = scale.labels
        if scale.evaluations is not None:
            keys["eval_every"] = max(1, self.rounds() // scale.evaluations)
        if self.clients > 1:
            keys |= {"clients": self.clients, "strategy": self.strategy, "partition": self.partition}
            keys["budget.share"] = "pool"  # all train to the end, however unequal their parts are
            if self.alpha is not None:
                keys["partition.alpha"] = f"{self.alpha:g}"
        for key, path in (("dataset.path", data), ("model.pretrained", weights)):
            if path is not None:
                keys[key] = f'"{path}"'
        keys |= dict(option.split("=", 1) for option in self.options)
        return [f"{key}={value}" for key, value in keys.items()]

    def step(self) -> Tally:
        """The price of one of its training steps."""
        return PriceList(Stages(self.compressor())).step(self.shape())

    def xi_nominal(self) -> float:
        """The ratio that was asked for: the paper's Table 1, mean of both ways."""
        return sum(self.compressor().nominal_ratios(self.shape())) / 2

    def rounds(self) -> int:
        """Epochs that the budget buys if activations are all that counts, the last perhaps not whole; or the most."""
        scale = SCALES[self.scale]
        if scale.epochs is not None:
            return scale.epochs
        images = scale.images or _IMAGES[self.dataset]
        shape, step = self.shape(), self.step()
        base = base_layout(shape)
        gamma = scale.base_epochs * images * (base.uplink_bits + base.downlink_bits) / shape.batch
        bought = math.ceil(gamma / (step.uplink_bits + step.downlink_bits) / (images // shape.batch))
        return bought if scale.most_epochs is None else min(bought, scale.most_epochs)

    def compressor(self) -> compressors.Compressor:
        """What its client has."""
        options: dict[str, object] = {}
        if self.value is not None:
            name = PARAMETERS[self.method]
            options[name] = int(self.value) if name in ("group", "codewords") else self.value
        if self.rule is not None:
            options["rule"] = self.rule
        for option in self.options:
            key, _, value = option.partition("=")
            if key.startswith("compressor."):
                options[key.removeprefix("compressor.")] = _number_or_text(value)
        return compressors.build(self.method, **options)

    def shape(self) -> BatchShape:
        """Of its whole batches."""
        scale = SCALES[self.scale]
        given = dict(option.split("=", 1) for option in self.options)
        return BatchShape(
            batch=int(given.get("batch_size", scale.batch)), tokens=(scale.size // _PATCH) ** 2 + 1,
            width=_WIDTH[self.model], classes=_CLASSES[scale.labels or self.dataset],
        )  # fmt: skip


def _number_or_text(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text
