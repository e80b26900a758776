"""The typed view of a configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import compressors
from flsplit import data, metrics
from flsplit.config.faults import FaultsConfig
from flsplit.errors import UserError, options_of_the_user
from flsplit.ledger.budget import BudgetConfig
from flsplit.metrics import Metric
from flsplit.network import NetworkConfig
from flsplit.typed import read

LINK = "link_"  # before the columns of an evaluation through quantiser and channel (`at_eval`)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Group `model`."""

    name: str
    pretrained: bool | str
    image_size: int | None
    split_point: int
    default_lr: float
    family: str | None = None
    tune: str = "all"
    tune_args: dict[str, Any] = field(default_factory=dict)
    tune_server: str = "all"
    tune_server_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Group `engine`."""

    name: str
    cpus_per_client: float
    gpus_per_client: float | str
    stack: int = 1
    address: str | None = None
    graphs: bool = True

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
    quantizer: dict[str, Any] = field(default_factory=lambda: {"name": "none"})
    channel: dict[str, Any] = field(default_factory=lambda: {"name": "clean"})
    network: dict[str, Any] = field(default_factory=lambda: {"name": "none"})
    strategy: dict[str, Any]
    partition: dict[str, Any]
    engine: EngineConfig
    augment: str
    clients: int
    clients_per_round: int | None
    client_profile: str | None
    rounds: int | None
    local_epochs: int | None
    local_steps: int | None
    batch_size: int
    budget: BudgetConfig
    lr: float
    optimizer_state: str
    device: str
    precision: str
    compile: bool
    eval_every: int
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])
    seed: int
    out: str | None = None
    resume: str | None = None
    experiment: str | None = None
    objective: str = "best_test_accuracy"
    logger: list[str] = field(default_factory=list)
    sampling: str = "uniform"
    min_clients: int = 1
    client_timeout: float | None = None
    resume_force: bool = False
    faults: FaultsConfig = field(default_factory=FaultsConfig)

    @property
    def taking_part(self) -> int:
        """Clients that take part in a round."""
        return self.clients if self.clients_per_round is None else self.clients_per_round

    def compressor_instance(self, ratio: float | None = None) -> compressors.Compressor:
        """A compressor as configured, not yet bound to a model.

        Args:
            ratio: of a client that has its own; None for the ratio of all.

        Raises:
            UserError: for an unknown name or option, a value that cannot be, or a ratio that the method cannot have.
        """
        with options_of_the_user():
            compressor = compressors.build(**self.compressor)
            if ratio is None:
                return compressor
            return compressors.build(**{**self.compressor, **compressor.options_for(ratio)})

    @property
    def ratio(self) -> float:
        """The compression ratio of all clients, where each could have its own.

        Raises:
            UserError: if it could not.
        """
        compressor = self.compressor_instance()
        try:
            [(key, value), *_] = compressor.options_for(0.5).items()
        except ValueError:
            key, value = "", None
        if value != 0.5:
            raise UserError(
                f"budget.allocation must be equal with compressor={compressor.name}, which cannot have any ratio "
                "between 0 and 1; adc and topk can"
            )
        return float(getattr(compressor, key))

    def check_compressor(self, ratio: float | None = None, **sizes: int) -> None:
        """Ask the compressor whether it can work with sizes (`Compressor.check`).

        Args:
            ratio: see `compressor_instance`.
            sizes: what is known of them.

        Raises:
            UserError: if it cannot.
        """
        compressor = self.compressor_instance(ratio)
        with options_of_the_user():
            compressor.check(**sizes)

    def stage_instances(self) -> list[compressors.Stage]:
        """The stages behind the compressor, in the order in which a message leaves, not yet bound to a model."""
        return [compressors.build_stage(group, **getattr(self, group)) for group in compressors.STAGES]

    @property
    def network_config(self) -> NetworkConfig | None:
        """Group `network`; None where no time is simulated.

        Raises:
            UserError: for an unknown key, or a value that cannot be.
        """
        if self.network == {"name": "none"}:
            return None
        found = read(NetworkConfig, self.network, at="network.")
        found.check()
        return found

    def metric_instances(self, classes: Sequence[str]) -> list[Metric]:
        """The metrics of an evaluation, for classes of these names.

        Raises:
            UserError: for an unknown name.
        """
        with options_of_the_user():
            found = [metrics.build(name, tuple(classes)) for name in self.metrics]
        columns = ["loss", *(name for metric in found for name in metric.columns)]
        columns += [f"{LINK}{name}" for name in columns]
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise UserError(f"metrics: each must have columns of its own, but test_{twice[0]} would be there twice")
        return found

    def metric_columns(self, classes: Sequence[str]) -> dict[str, bool]:
        """Columns of the metrics, and whether higher is better in each."""
        found = self.metric_instances(classes)
        columns = {name: metric.higher_is_better for metric in found for name in metric.columns}
        if not any(stage.at_eval and stage.ways for stage in self.stage_instances()):
            return columns
        return {**columns, **{f"{LINK}{name}": higher for name, higher in columns.items()}, f"{LINK}loss": False}

    def to_yaml(self, out: Path) -> str:
        """The text of `config.yaml` in the run's folder; it says nothing of how this start of the run was asked for."""
        of_a_start = ("resume", "resume_force", "experiment", "objective")
        values = {key: value for key, value in self.as_dict().items() if key not in of_a_start}
        return OmegaConf.to_yaml(OmegaConf.create({**values, "out": str(out)}))

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values; `flsplit.config.checks.read_config` brings them back."""
        return asdict(self)
