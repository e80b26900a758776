"""One experiment from start to finish."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch

from flsplit import data, engine
from flsplit.assembly import Assembly, Costs, Plan, assembly_for
from flsplit.client.app import app as client_app
from flsplit.compose import compose
from flsplit.config.overrides import quoted
from flsplit.config.profile import Profile, read_profiles
from flsplit.config.schema import Config
from flsplit.data.clients import save_clients
from flsplit.data.skew import effective_classes
from flsplit.display.building import building
from flsplit.display.console import Progress, closing_table
from flsplit.errors import UserError
from flsplit.ledger.allocation import by_diversity
from flsplit.record import atomic
from flsplit.record.folder import alone_in, folder_for
from flsplit.record.loggers import Loggers, Told
from flsplit.record.run import Run, read_run
from flsplit.record.tables import Recorder, write_partition
from flsplit.report.labels import settings
from flsplit.server.app import Server
from flsplit.server.checkpoint import Checkpoints
from flsplit.server.origin import origin_of
from flsplit.server.resume import check_checkpoint
from flsplit.server.strategy import Strategy, build
from flsplit.server.summary import finish, numbers
from flsplit.split import memory
from flsplit.split.side import Side
from flsplit.typed import nearest

if TYPE_CHECKING:
    from datasets import DatasetDict

PROFILE = "client_profile.csv"
Start = Callable[[engine.ServerMain], None]


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
    in_sweep: bool = False  # then rounds and its end are not told of: `flsplit.sweep` tells of jobs

    @property
    def dataset(self) -> data.Dataset:
        """The tables of the data."""
        return assembly_for(self.plan.to_json()).dataset


def run(overrides: Sequence[str] = (), *, dataset: DatasetDict | None = None, quiet: bool = True) -> Run:
    """Run one experiment.

    Args:
        overrides: as on the command line, such as `["clients=4", "engine=inline"]`.
        dataset: a `datasets.DatasetDict` with images and class labels, in the place of `dataset=...`; a copy is kept
            in the cache of tables, from which the run can be resumed.
        quiet: whether to show no progress.

    Raises:
        UserError: for a mistake in the overrides, before anything is written.
        RunFailed: if the run could not go on; its folder holds what was finished.
    """
    if isinstance(overrides, str) or not all(isinstance(each, str) for each in overrides):
        raise UserError(f'run: overrides are a list of texts, such as ["clients=4"], got {overrides!r}')
    given = [] if dataset is None else ["dataset=folder", f"dataset.path={quoted(str(data.kept(dataset)))}"]
    return execute(compose([*given, *overrides]), quiet=quiet)


def execute(
    config: Config,
    *,
    quiet: bool = False,
    stream: TextIO | None = None,
    start: Start | None = None,
    prepared: Prepared | None = None,
) -> Run:
    """Run a checked configuration: prepare, train, summarise.

    Args:
        config: from `compose`.
        quiet: whether to show no progress.
        stream: for progress and the closing table; stderr and stdout if None.
        start: provides grid and hub to the server's rounds; the configured engine if None.
        prepared: from `prepare`, where that has been done already.

    Raises:
        UserError: if data or model refuse the configuration; nothing is written then.
        RunFailed: if the run could not go on.
    """
    prepared = prepared or prepare(config, quiet=quiet, stream=stream)
    with alone_in(prepared.out, resumed=config.resume is not None):
        return _execute(prepared, quiet=quiet, stream=stream, start=start)


def _execute(prepared: Prepared, *, quiet: bool, stream: TextIO | None, start: Start | None) -> Run:
    config = prepared.plan.config
    recorder, checkpoints = lay_out(prepared)
    if start is None:
        start = partial(engine.run, prepared.plan, client_app, prepared.workers)
    with closing(recorder.loggers):
        server = _play(prepared, recorder, checkpoints, start, quiet=quiet, stream=stream)
        metrics = config.metric_columns(prepared.dataset.classes)
        status = "budget" if server.out_of_budget else "completed"
        summary = finish(prepared.plan, metrics, prepared.out, server, recorder, status)
        if recorder.loggers.take_files:
            from flsplit.report.page import write_report

            write_report([prepared.out], prepared.out / "report.html")
            recorder.loggers.finish(summary, [prepared.out / name for name in ("config.yaml", "report.html")])
    if not (quiet or prepared.in_sweep):
        closing_table({**summary, "out": str(prepared.out)}, title=title(config), stream=stream or sys.stdout)
    return read_run(prepared.out)


def _play(
    prepared: Prepared, recorder: Recorder, checkpoints: Checkpoints, start: Start, *, quiet: bool,
    stream: TextIO | None,
) -> Server:  # fmt: skip
    """All rounds; what was finished is summarised where they come to no good end."""
    state = checkpoints.load()
    with Progress(
        rounds=Costs(assembly_for(prepared.plan.to_json())).expected_rounds(),
        first_round=state.round + 1 if state else 1,
        stream=stream or sys.stderr,
        quiet=quiet,
        lines=not prepared.in_sweep,
    ) as progress:
        server = Server(
            prepared.plan.to_json(), recorder, checkpoints, progress, workers=prepared.workers,
            origin=prepared.origin, notes=prepared.notes,
        )  # fmt: skip
        recorder.loggers.tell = progress.note
        for note in prepared.notes:
            progress.note(note)
        if state:
            progress.note(f"goes on after round {state.round}")
        try:
            start(server.run)
        except UserError:
            raise
        except Exception:
            with suppress(OSError):  # a disk that is full, say, is what has stopped it
                metrics = prepared.plan.config.metric_columns(prepared.dataset.classes)
                finish(prepared.plan, metrics, prepared.out, server, recorder, "failed")
            raise
    return server


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
    profiles = _profiles(config, out)
    if config.budget.allocation == "diversity":
        held = [np.bincount(labels[train], minlength=len(dataset.classes)) for train, _ in halves]
        profiles = _by_diversity(config, profiles, np.stack(held))
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
        profiles={str(client): asdict(profile) for client, profile in profiles.items()},
    )  # fmt: skip
    assembly = assembly_for(plan.to_json())
    tokens, width = assembly.activations
    config.check_compressor(batch_size=config.batch_size, tokens=tokens, width=width)
    for profile in profiles.values():
        size = profile.batch_size or config.batch_size
        if profile.ratio is not None and assembly.cohort:
            raise UserError(
                "client_profile: ratio must be empty with compressor.scope=cohort, which has one ratio for all clients"
            )
        config.check_compressor(profile.ratio, batch_size=size, tokens=tokens, width=width)
    sides = assembly.client_side(), assembly.server_side()
    _check_sides(strategy, assembly, *sides)
    _check_time(strategy, config)
    _check_budget(Costs(assembly), [len(train) for train, _ in halves])
    _check_memory(assembly, sides, most=max(len(train) for train, _ in halves))
    if config.engine.stack > 1:
        _check_stack(strategy, assembly)
    origin = origin_of(plan, dataset.fingerprint)
    notes = assembly.about_weights()
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
    told = Told(out, settings(config.as_dict()), prepared.varied)
    recorder = Recorder(out, Loggers(config.logger, told), config.metric_columns(prepared.dataset.classes))
    try:
        out.mkdir(parents=True, exist_ok=True)
        atomic.write(
            out / "config.yaml", config.to_yaml(out).encode()
        )  # first of all, so that `resume` knows what this is
        checkpoints.create()
    except OSError as error:
        raise UserError(f"out={out} cannot be made: {error.strerror}") from error
    if config.client_profile is not None and not (out / "checkpoint" / PROFILE).exists():
        atomic.write(out / "checkpoint" / PROFILE, Path(config.client_profile).read_bytes())
    save_clients(Path(prepared.plan.clients), prepared.train, prepared.held)
    write_partition(out / "partition.parquet", prepared.dataset.train.labels, prepared.train)
    if checkpoints.load() is None:
        recorder.save()
    return recorder, checkpoints


def title(config: Config) -> str:
    """A run in a few words."""
    who = "client" if config.clients == 1 else "clients"
    return (
        f"{config.compressor['name']} · {config.strategy['name']} · {config.clients} {who} · "
        f"{config.model.name} on {config.dataset.name}"
    )


def _profiles(config: Config, out: Path) -> dict[int, Profile]:
    """Clients that differ; a resumed run has its own copy of the file."""
    if config.client_profile is None:
        return {}
    kept = out / "checkpoint" / PROFILE
    return read_profiles(
        kept if config.resume is not None and kept.exists() else Path(config.client_profile), config.clients
    )


def _by_diversity(config: Config, profiles: dict[int, Profile], counts: np.ndarray) -> dict[int, Profile]:
    """Give every client the ratio that its training samples of each label, (clients, labels), bring it."""
    if any(profile.ratio is not None for profile in profiles.values()):
        raise UserError(
            "client_profile: ratio must be empty with budget.allocation=diversity, which says every client's"
        )
    there, diversity, group = counts.sum(axis=1), np.ones(len(counts)), config.compressor_instance().group_size
    diversity[there > 0] = effective_classes(counts[there > 0])
    steps = [profiles.get(at, Profile()).step_sizes(config, int(count), group) for at, count in enumerate(there)]
    ratios = by_diversity(config.ratio, diversity, np.array([sum(sizes) for sizes in steps]))
    return {client: replace(profiles.get(client, Profile()), ratio=float(own)) for client, own in enumerate(ratios)}


def _check_sides(strategy: Strategy, assembly: Assembly, client: Side, server: Side) -> None:
    config, compressor = assembly.config, client.stages.compressor
    if compressor.needs_scores and not assembly.parts[0].has_scores:
        raise UserError(
            f"compressor={compressor.name} needs the attention of a class token, which {config.model.name} does not "
            f"have; choose another, such as topk, or a Vision Transformer that classifies from its class token"
        )
    if not client.parameters and not server.parameters:
        raise UserError(
            "model.tune and model.tune_server leave nothing to train; one of them must be another, such as all"
        )
    if client.has_own and strategy.one_client_model:
        raise UserError(
            f"strategy={strategy.name} trains one client-side model of all clients, so no stage can keep state at each "
            "of them; quantizer and channel must be without, or the strategy another"
        )


def _check_budget(costs: Costs, samples: list[int]) -> None:
    budget, config = costs.budget_of(samples), costs.config
    if budget is not None and not budget.able({}, config.taking_part):
        raise UserError(
            f"budget.base_epochs={config.budget.base_epochs:g} does not pay for the models of a first round "
            f"(budget.count_models=true); it must be above {budget.least(config.taking_part):.3g}"
        )


def _check_time(strategy: Strategy, config: Config) -> None:
    network = config.network_config
    if network is None and strategy.needs_network:
        raise UserError(f"strategy={strategy.name} needs a network that says how long things take, such as network=lte")
    if network is not None and network.round_deadline_s is not None and not strategy.side_by_side:
        raise UserError(
            f"network.round_deadline_s must be null for strategy={strategy.name}, whose clients wait for each other or "
            "have no common end of a round"
        )


def _check_memory(assembly: Assembly, sides: tuple[Side, Side], most: int) -> None:
    """Refuse what cannot be in memory; `most` samples are the largest client's."""
    config, (tokens, width), size = assembly.config, assembly.activations, assembly.plan.image_size
    lanes = min(config.engine.stack, config.taking_part)
    weights = sum(len(side.state().weights) for side in sides)
    batch = max(assembly.profile(client).batch_size or config.batch_size for client in range(config.clients))
    step = memory.of_a_step(min(batch, most), image_size=size, tokens=tokens, width=width)
    stack = f"engine.stack={lanes} of " if lanes > 1 else ""
    memory.check(
        lanes * (memory.of_training(weights) + step), assembly.device,
        f"{stack}batch_size={batch} at model.image_size={size}", "lower one of them",
    )  # fmt: skip


def _check_stack(strategy: Strategy, assembly: Assembly) -> None:
    if strategy.placement != "replica":
        raise UserError(
            f"engine.stack must be 1 for {strategy.name} with strategy.placement={strategy.placement}: "
            "clients are stacked where each steps a replica of the server-side model (strategy.placement=replica)"
        )
    try:
        assembly.stacks()
    except UserError as error:
        raise UserError(f"engine.stack must be 1: {error}") from error


def _device(config: Config) -> str:
    hidden = config.engine.name != "inline" and config.engine.gpus_per_client == 0 and config.device == "auto"
    return "cuda" if config.device != "cpu" and not hidden and torch.cuda.is_available() else "cpu"


def _image_size(config: Config, dataset: data.Dataset) -> int:
    if config.model.image_size is not None:
        return config.model.image_size
    return max(dataset.train.pixels.shape[1:3]) if dataset.train.uniform else 64


def trained(folder: Path | str) -> tuple[Assembly, Side, Side]:
    """What a run has come to, to look into: its data and settings, and both sides as its last checkpoint has them.

    Args:
        folder: the run's.

    Returns:
        the assembly (`dataset`, `pipeline`, `config`); client and server side: `model`, a module in evaluation mode
        with the global weights, and `stages`, compressor first.

    Raises:
        UserError: if there is no checkpoint, or the run's data are not where they were.
    """
    state = Checkpoints(Path(folder) / "checkpoint").load()
    if state is None:
        raise UserError(f"{folder}: there is no checkpoint of a run here")
    assembly = assembly_for(prepare(compose([f"resume={quoted(str(folder))}"])).plan.to_json())
    sides = assembly.client_side(), assembly.server_side()
    for side, model in zip(sides, (state.client_model, state.server_model)):
        side.load(replace(model, moments=None))
        side.modules.eval()
    return assembly, *sides
