"""From a composed configuration to a run that can begin: all that data, model and machine may refuse."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from flsplit import data, engine
from flsplit.assembly import Plan, assembly_for
from flsplit.config.schema import Config
from flsplit.data.clients import save_clients
from flsplit.display.building import building
from flsplit.errors import UserError, nearest, no_exit
from flsplit.experiment import refusals
from flsplit.experiment.profiles import keep, profiles_of
from flsplit.record import atomic
from flsplit.record.folder import folder_for
from flsplit.record.loggers import Loggers, Told
from flsplit.record.tables import Recorder, write_partition
from flsplit.report.labels import settings, text
from flsplit.server.checkpoint import Checkpoints
from flsplit.server.origin import origin_of
from flsplit.server.resume import check_checkpoint
from flsplit.server.strategy import build
from flsplit.server.summary import numbers


@dataclass(frozen=True)
class Prepared:
    """Everything that may still refuse a configuration has been done; nothing has been written to `out`.

    A sweep keeps one for each of its jobs, so nothing large is in it but the rows that clients train on (`train`) and
    test on (`held`). Tables and models are the `Assembly`'s, of which a process keeps one at a time.
    """

    plan: Plan
    out: Path
    train: list[np.ndarray]
    held: list[np.ndarray]
    workers: int
    origin: dict[str, Any]
    notes: list[str]
    varied: Mapping[str, Any] = field(default_factory=dict)
    sweep: Path | None = None  # folder of the sweep whose job it is; then `flsplit.sweep` tells of it, rounds are not
    told: Collection[str] = ()  # of `notes`, what jobs before it have told the user

    @property
    def dataset(self) -> data.Dataset:
        """The tables of the data."""
        return assembly_for(self.plan.to_json()).dataset


@no_exit()
def prepare(config: Config, *, quiet: bool = True, stream: TextIO | None = None) -> Prepared:
    """Load the data, cut the model, divide the samples: all that can refuse a configuration.

    Args:
        config: from `compose`.
        quiet: whether to show no progress of tables that have to be built.
        stream: for it; stderr if None.

    Raises:
        UserError: naming the key.
    """
    out = folder_for(config.out, resumed=config.resume is not None)
    try:
        partition = data.build_partition(**config.partition)
        with building(quiet=quiet, stream=stream) as tell:
            dataset = data.load(config.dataset, seed=config.seed, columns=partition.columns, tell=tell)
    except OSError as error:
        raise UserError(f"dataset.path: {error.strerror}: {error.filename}") from error
    labels = dataset.train.labels
    parts = data.deal(dataset.samples(partition.columns), config.clients, partition, seed=config.seed)
    halves = [
        data.split_holdout(rows, labels, partition.holdout, seed=config.seed, client=client)
        for client, rows in enumerate(parts)
    ]
    counts = [np.bincount(labels[train], minlength=len(dataset.classes)) for train, _ in halves]
    profiles = profiles_of(config, out, np.stack(counts))
    known = numbers(config, config.metric_columns(dataset.classes))
    if config.objective not in known:
        raise UserError(
            f"objective must be one of {', '.join(known)}, got {config.objective!r}{nearest(config.objective, known)}"
        )
    device, strategy = _device(config), build(**config.strategy)
    plan = Plan(
        config=config, data=str(dataset.path.resolve()), device=device,
        clients=str(out.resolve() / "checkpoint" / "clients.npz"), image_size=_image_size(config, dataset),
        moves=strategy.moves, split=strategy.split, placement=strategy.placement,
        proximal_mu=strategy.aggregator.proximal_mu, logit_adjustment=strategy.logit_adjustment,
        personal_buffers=strategy.personal_buffers,
        profiles={str(client): asdict(profile) for client, profile in profiles.items()}, made=time.time_ns(),
    )  # fmt: skip
    assembly = assembly_for(plan.to_json())
    refusals.check(strategy, assembly, [len(train) for train, _ in halves])
    origin = origin_of(plan, dataset.fingerprint)
    notes = assembly.about_weights()
    if (tested := data.split_for_tests(config.dataset)) != config.dataset.test_split:
        notes.append(f"dataset={config.dataset.name}: tested on {tested}, there is no {config.dataset.test_split}")
    if files := data.passed_over(config.dataset):
        notes.append(f"dataset.path: files that are not taken for images by the ending of their names: {files}")
    if config.model.image_size is None and not _square(dataset.train):
        size = f"{plan.image_size}x{plan.image_size}"
        notes.append(f"images that are not {size} px are resized to it; model.image_size=PIXELS takes another size")
    if config.sampling == "balanced" and config.taking_part == config.clients:
        notes.append("sampling=balanced has nothing to choose: all clients take part in every round")
    if config.resume is not None:
        notes += check_checkpoint(out, config, assembly, origin)
    return Prepared(
        plan, out, [train for train, _ in halves], [held for _, held in halves],
        engine.workers(config, device == "cuda"), origin, notes,
    )  # fmt: skip


def lay_out(prepared: Prepared) -> tuple[Recorder, Checkpoints]:
    """Make the run's folder with what is known before the first round.

    Raises:
        UserError: if it cannot be made.
    """
    out, config = prepared.out, prepared.plan.config
    checkpoints = Checkpoints(out / "checkpoint")
    varied = {key: text(value) for key, value in prepared.varied.items() if value is not None}
    told = Told(out, settings(config.as_dict()), varied, prepared.sweep)
    recorder = Recorder(out, Loggers(config.logger, told), config.metric_columns(prepared.dataset.classes))
    try:
        out.mkdir(parents=True, exist_ok=True)
        atomic.write(
            out / "config.yaml", config.to_yaml(out).encode()
        )  # first of all, so that `resume` knows what this is
        checkpoints.create()
    except OSError as error:
        raise UserError(f"out={out} cannot be made: {error.strerror}") from error
    keep(config, out)
    save_clients(Path(prepared.plan.clients), prepared.train, prepared.held)
    write_partition(out / "partition.parquet", prepared.dataset.train.labels, prepared.train)
    if checkpoints.load() is None:
        recorder.save()
    return recorder, checkpoints


def _device(config: Config) -> str:
    hidden = config.engine.name != "inline" and config.engine.gpus_per_client == 0 and config.device == "auto"
    return "cuda" if config.device != "cpu" and not hidden and torch.cuda.is_available() else "cpu"


def _image_size(config: Config, dataset: data.Dataset) -> int:
    if config.model.image_size is not None:
        return config.model.image_size
    return max(dataset.train.pixels.shape[1:3]) if dataset.train.uniform else 64


def _square(table: data.Table) -> bool:
    """Whether all its images are squares of one size."""
    return table.uniform and len(set(table.pixels.shape[1:3])) == 1
