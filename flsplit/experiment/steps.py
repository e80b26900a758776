"""One experiment from start to finish."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from flsplit import data, engine
from flsplit.assembly import Assembly, Costs, assembly_for
from flsplit.client.app import app as client_app
from flsplit.compose import compose
from flsplit.config.overrides import quoted
from flsplit.config.schema import Config
from flsplit.display.console import Progress, closing_table
from flsplit.errors import UserError, no_exit
from flsplit.experiment.preparation import Prepared, lay_out, prepare
from flsplit.record.folder import alone_in
from flsplit.record.run import Run, read_run
from flsplit.record.tables import Recorder, Row
from flsplit.server.app import Server
from flsplit.server.checkpoint import Checkpoints, with_own
from flsplit.server.summary import finish
from flsplit.split.side import Side

if TYPE_CHECKING:
    from datasets import DatasetDict

Start = Callable[[engine.ServerMain], None]


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
        ExitRaised: in the place of a plug-in's `SystemExit`; any other error of one is raised as it is.
    """
    if isinstance(overrides, str) or not all(isinstance(each, str) for each in overrides):
        raise UserError(f'run: overrides are a list of texts, such as ["clients=4"], got {overrides!r}')
    if dataset is None:
        return execute(compose(overrides), quiet=quiet)
    place = data.kept(dataset)
    try:
        config = compose(["dataset=folder", f"dataset.path={quoted(str(place))}", *overrides])
        return execute(config, quiet=quiet)
    except data.DataError as error:  # of a key and a folder that nobody has typed
        raise UserError(str(error).replace(f"dataset.path: {place}", "the DatasetDict given as dataset")) from error


@no_exit()
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
        summary = _summarise(prepared, server, recorder, "budget" if server.out_of_budget else "completed")
    if not quiet and prepared.sweep is None:
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
        lines=prepared.sweep is None,
    ) as progress:
        server = Server(
            prepared.plan.to_json(), recorder, checkpoints, progress, workers=prepared.workers,
            origin=prepared.origin, notes=prepared.notes,
        )  # fmt: skip
        recorder.loggers.tell = progress.note
        for note in prepared.notes:
            if note not in prepared.told:
                progress.note(note)
        if state:
            progress.note(f"goes on after round {state.round}")
        try:
            with no_exit():
                start(server.run)
        except UserError:
            raise
        except Exception:
            with suppress(Exception):  # such as of a disk that is full: what has stopped the run is what to tell
                _summarise(prepared, server, recorder, "failed")
            raise
    return server


def _summarise(prepared: Prepared, server: Server, recorder: Recorder, status: str) -> Row:
    """Write what the run has come to, for loggers that take files too."""
    metrics = prepared.plan.config.metric_columns(prepared.dataset.classes)
    summary = finish(prepared.plan, prepared.origin, metrics, prepared.out, server, recorder, status)
    if recorder.loggers.take_files:
        from flsplit.report.page import write_report

        write_report([prepared.out], prepared.out / "report.html")
        recorder.loggers.finish(summary, [prepared.out / name for name in ("config.yaml", "report.html")])
    return summary


def title(config: Config) -> str:
    """A run in a few words."""
    who = "client" if config.clients == 1 else "clients"
    return (
        f"{config.compressor['name']} · {config.strategy['name']} · {config.clients} {who} · "
        f"{config.model.name} on {config.dataset.name}"
    )


@no_exit()
def trained(folder: Path | str, *, client: int | None = None) -> tuple[Assembly, Side, Side]:
    """What a run has come to, to look into: its data and settings, and both sides as its last checkpoint has them.

    Args:
        folder: the run's.
        client: whose client-side model, where clients have models of their own (`splitfed_v3`), or running statistics
            (`strategy.buffers=personal`).

    Returns:
        the assembly (`dataset`, `pipeline`, `config`); client and server side: `model`, a module in evaluation mode
        with the weights that the run evaluates, and `stages`, compressor first.

    Raises:
        UserError: if there is no checkpoint, the run's data are not where they were, there is no such client, or none
            is named where they differ.
    """
    state = Checkpoints(Path(folder) / "checkpoint").load()
    if state is None:
        raise UserError(f"{folder}: there is no checkpoint of a run here")
    assembly = assembly_for(prepare(compose([f"resume={quoted(str(folder))}"])).plan.to_json())
    count = assembly.config.clients
    if client is None and (assembly.plan.personal_buffers or state.of_their_own):
        raise UserError(
            f"{folder}: its clients have models of their own; name one, such as client=0, of 0 to {count - 1}"
        )
    if client is not None and client not in range(count):
        raise UserError(f"{folder}: client must be one of 0 to {count - 1}, got {client}")
    sides = assembly.client_side(), assembly.server_side()
    kept = {} if client is None else state.kept.get(client, {})
    for side, model in zip(sides, (with_own(state.client_model, kept), state.server_model)):
        side.load(replace(model, moments=None))
        side.modules.eval()
    return assembly, *sides
