"""The typed view of a configuration. Every mistake that can be seen without data or model is caught here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import compressors
from flsplit import data
from flsplit.errors import UserError
from flsplit.typed import nearest, read

if TYPE_CHECKING:
    from strategies import Strategy


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Group `model`."""

    name: str
    pretrained: bool | str
    image_size: int | None
    split_point: int
    default_lr: float


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Group `engine`."""

    name: str
    cpus_per_client: float
    gpus_per_client: float | str

    @property
    def threads(self) -> int:
        """Torch threads of every client, of the host and of evaluation."""
        return max(1, math.floor(self.cpus_per_client))


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment, all defaults filled in."""

    dataset: data.DatasetConfig
    model: ModelConfig
    compressor: dict[str, Any]
    strategy: dict[str, Any]
    partition: data.PartitionConfig
    engine: EngineConfig
    augment: str
    clients: int
    clients_per_round: int | None
    rounds: int
    local_epochs: int | None
    local_steps: int | None
    batch_size: int
    lr: float
    optimizer_state: str
    device: str
    precision: str
    eval_every: int
    seed: int
    out: str | None = None
    resume: str | None = None
    experiment: str | None = None

    @property
    def taking_part(self) -> int:
        """Clients that take part in a round."""
        return self.clients if self.clients_per_round is None else self.clients_per_round

    def compressor_instance(self) -> compressors.Compressor:
        """A compressor as configured, not yet bound to a model."""
        return compressors.build(**self.compressor)

    def strategy_instance(self) -> Strategy:
        """A strategy as configured."""
        import strategies  # strategies build on flsplit, not the other way round: found by name, when needed

        return strategies.build(**self.strategy)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values; `read_config` brings them back."""
        return asdict(self)


_CHOICES = {
    "augment": ("none", "paper"),
    "optimizer_state": ("persist", "reset"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("fp32", "bf16"),
    "engine.name": ("ray", "inline"),
}
_COUNTS = (
    "clients", "clients_per_round", "rounds", "local_epochs", "local_steps", "batch_size", "eval_every",
)  # fmt: skip


def read_config(values: Mapping[str, Any]) -> Config:
    """Check plain values and turn them into a `Config`.

    Raises:
        UserError: one line that names the key, what is wrong with it and what would be right.
    """
    config = read(Config, values)
    for key, choices in _CHOICES.items():
        value = config.engine.name if key == "engine.name" else getattr(config, key)
        if value not in choices:
            known = ", ".join(choices)
            raise UserError(f"{key} must be one of {known}, got {value!r}{nearest(value, choices)}")
    for key in _COUNTS:
        value = getattr(config, key)
        if value is not None and value < 1:
            raise UserError(f"{key} must be at least 1, got {value}")
    if config.seed < 0:
        raise UserError(f"seed must not be negative, got {config.seed}")
    for key, number in (("lr", config.lr), ("engine.cpus_per_client", config.engine.cpus_per_client)):
        if not (number > 0 and math.isfinite(number)):
            raise UserError(f"{key} must be a positive number, got {number}")
    if config.taking_part > config.clients:
        raise UserError(f"clients_per_round must be at most clients ({config.clients}), got {config.clients_per_round}")
    if config.local_epochs is None and config.local_steps is None:
        raise UserError("local_epochs or local_steps must be given")
    _check_model(config.model)
    _check_gpus(config)
    try:
        config.compressor_instance().check(batch_size=config.batch_size)
        config.strategy_instance()
        data.check(config.dataset)
    except ValueError as error:
        raise UserError(str(error)) from error
    return config


def _check_model(model: ModelConfig) -> None:
    if model.image_size is not None and not 1 <= model.image_size <= 4096:
        raise UserError(f"model.image_size must be between 1 and 4096 pixels, got {model.image_size}")
    if model.split_point < 1:
        raise UserError(f"model.split_point must be at least 1, got {model.split_point}")
    if isinstance(model.pretrained, str) and not Path(model.pretrained).is_file():
        raise UserError(f"model.pretrained must be true, false or a weights file; no such file: {model.pretrained}")


def _check_gpus(config: Config) -> None:
    share = config.engine.gpus_per_client
    wrong = share != "auto" if isinstance(share, str) else not (share >= 0 and math.isfinite(share))
    if wrong:
        raise UserError(f"engine.gpus_per_client must be auto or a number of GPUs from 0, got {share!r}")
    if torch.cuda.is_available():
        return
    if config.device == "cuda":
        raise UserError("device=cuda asks for a GPU, but PyTorch sees none here; use device=cpu or device=auto")
    if not isinstance(share, str) and share > 0:
        raise UserError(f"engine.gpus_per_client={share:g} asks for a GPU, but PyTorch sees none here; use auto or 0")
