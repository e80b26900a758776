"""From plain values to a checked `Config`: every mistake that can be seen without data or model is caught here."""

from __future__ import annotations

import math
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from flsplit import data
from flsplit.config.schema import Config, EngineConfig, ModelConfig
from flsplit.errors import UserError, nearest, nearest_path, options_of_the_user, shown
from flsplit.ledger.allocation import ALLOCATIONS
from flsplit.ledger.budget import CHARGES, SHARES
from flsplit.record.loggers import check_loggers
from flsplit.split.stages import Stages
from flsplit.split.tuning import interface as tuning
from flsplit.typed import read

P = TypeVar("P", str, str | None)

ENGINES = ("ray", "flower", "inline")
_CHOICES = {
    "augment": ("none", "paper"),
    "optimizer_state": ("persist", "reset"),
    "sampling": ("uniform", "balanced"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("fp32", "bf16"),
}
_COUNTS = (
    "clients", "clients_per_round", "rounds", "local_epochs", "local_steps", "batch_size", "eval_every", "min_clients",
)  # fmt: skip


_MOST = 1_000_000_000  # of anything that is counted
_PATIENCE = 5.0  # seconds within which a cluster must answer


def read_config(values: Mapping[str, Any]) -> Config:
    """Check plain values and turn them into a `Config`.

    Raises:
        UserError: one line that names the key, what is wrong with it and what would be right.
    """
    for key, choices in _CHOICES.items():
        value = values.get(key, choices[0])
        if value not in choices:
            known = ", ".join(choices)
            raise UserError(f"{key} must be one of {known}, got {shown(value)}{nearest(str(value), choices)}")
    loggers = values.get("logger") or []  # one may be named alone
    config = _expanded(read(Config, {**values, "logger": [loggers] if isinstance(loggers, str) else loggers}))
    for key in _COUNTS:
        value = getattr(config, key)
        if value is not None and not 1 <= value <= _MOST:
            raise UserError(f"{key} must be {'at least 1' if value < 1 else f'at most {_MOST}'}, got {value}")
    if config.seed < 0:
        raise UserError(f"seed must not be negative, got {config.seed}")
    if not (config.lr > 0 and math.isfinite(config.lr)):
        raise UserError(f"lr must be a positive number, got {config.lr}")
    if config.engine.name not in ENGINES:
        raise UserError(
            f"engine.name must be one of {', '.join(ENGINES)}, got {config.engine.name!r}"
            f"{nearest(config.engine.name, ENGINES)}"
        )
    if config.taking_part > config.clients:
        raise UserError(f"clients_per_round must be at most clients ({config.clients}), got {config.clients_per_round}")
    if config.min_clients > config.taking_part:
        raise UserError(f"min_clients must be at most the {config.taking_part} of a round, got {config.min_clients}")
    _check_faults(config)
    if config.local_epochs is None and config.local_steps is None:
        raise UserError("local_epochs or local_steps must be given")
    _check_budget(config)
    _check_model(config.model)
    _check_address(config.engine)
    _check_cpus(config.engine)
    if not 1 <= config.engine.stack <= _MOST:
        raise UserError(f"engine.stack must be at least 1, got {config.engine.stack}")
    _check_gpus(config)
    _check_compile(config)
    check_loggers(config.logger)
    if not isinstance(config.strategy.get("aggregator_args", {}), Mapping):
        raise UserError(
            "strategy.aggregator_args is a group of keys (strategy.aggregator_args.KEY=VALUE), "
            f"got {shown(config.strategy['aggregator_args'])}"
        )
    config.check_compressor(batch_size=config.batch_size)
    with options_of_the_user():
        Stages(config.compressor_instance(), config.stage_instances())
        tuning.build(config.model.tune, **config.model.tune_args)
        with tuning.keys_of("server"):
            tuning.build(config.model.tune_server, **config.model.tune_server_args)
    _check_metrics(config)
    partition = data.build_partition(**config.partition)
    try:
        data.check(config.dataset, columns=partition.columns)
    except OSError as error:
        raise UserError(f"dataset.path: {error.strerror}: {error.filename}") from error
    return config


def _expanded(config: Config) -> Config:
    """Paths with the user's home folder in place of `~`.

    Raises:
        UserError: for an empty path, which would be taken for the folder at hand.
    """
    paths = {
        "out": config.out,
        "resume": config.resume,
        "client_profile": config.client_profile,
        "dataset.path": config.dataset.path,
        "model.pretrained": config.model.pretrained,
    }
    for key, path in paths.items():
        if isinstance(path, str) and not path.strip():
            raise UserError(f"{key} must not be empty; leave it out, or name a path")
    model = config.model
    if isinstance(model.pretrained, str):
        model = replace(model, pretrained=_home(model.pretrained))
    return replace(
        config, out=_home(config.out), resume=_home(config.resume), client_profile=_home(config.client_profile),
        model=model,
    )  # fmt: skip


def _home(path: P) -> P:
    """`path` with the user's home folder in place of `~`."""
    return str(Path(path).expanduser()) if path and path.startswith("~") else path


def _check_faults(config: Config) -> None:
    seconds = config.client_timeout
    if seconds is not None and not 0 < seconds <= _MOST:
        raise UserError(f"client_timeout must be a number of seconds above 0, or null, got {seconds:g}")
    if seconds is not None and config.engine.name != "ray":
        raise UserError(
            f"client_timeout needs engine=ray, whose client processes can be ended; {config.engine.name} has none"
        )
    config.faults.check()
    if config.faults.any and config.engine.stack > 1:
        raise UserError("faults are of single clients: engine.stack must be 1")


def _check_budget(config: Config) -> None:
    budget = config.budget
    for key, choices in (("charge", CHARGES), ("share", SHARES), ("allocation", ALLOCATIONS)):
        value = getattr(budget, key)
        if value not in choices:
            raise UserError(f"budget.{key} must be one of {', '.join(choices)}, got {value!r}{nearest(value, choices)}")
    network = config.network_config
    for key in ("seconds", "joules"):
        value = getattr(budget, key)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"budget.{key} must be above 0, or null, got {value:g}")
        if value is not None and network is None:
            raise UserError(f"budget.{key} needs a network that says how long things take, such as network=lte")
    epochs = budget.base_epochs
    if epochs is not None and not (0 < epochs <= _MOST):
        raise UserError(f"budget.base_epochs must be above 0 and at most {_MOST}, got {epochs:g}")
    if epochs is None and config.rounds is None and budget.seconds is None and budget.joules is None:
        raise UserError(
            "rounds=null needs a budget that ends the run: budget.base_epochs=EPOCHS, or with a network "
            "budget.seconds=SECONDS or budget.joules=JOULES"
        )


def _check_model(model: ModelConfig) -> None:
    if model.image_size is not None and not 4 <= model.image_size <= 4096:
        raise UserError(f"model.image_size must be between 4 and 4096 pixels, got {model.image_size}")
    if model.split_point < 1:
        raise UserError(f"model.split_point must be at least 1, got {model.split_point}")
    if model.name == "vit_micro" and model.pretrained is not False:
        raise UserError(f"model.pretrained must be false: vit_micro has no weights to load; got {model.pretrained}")
    if isinstance(model.pretrained, str) and not Path(model.pretrained).is_file():
        raise UserError(
            f"model.pretrained must be true, false or a weights file; no such file: {model.pretrained}"
            f"{nearest_path(model.pretrained)}"
        )


def _check_metrics(config: Config) -> None:
    if "accuracy" not in config.metrics or len(set(config.metrics)) < len(config.metrics):
        raise UserError(f"metrics must have accuracy, and each metric once, got {shown(config.metrics)}")
    config.metric_instances(())


def _check_address(engine: EngineConfig) -> None:
    address = engine.address
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"engine.address must be auto or the HOST:PORT of a Ray cluster, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise UserError(
            f"engine.address={address} does not answer ({error.strerror or error}); "
            "`ray start --head` starts a cluster, engine.address=null needs none"
        ) from error


def _check_cpus(engine: EngineConfig) -> None:
    share, there = engine.cpus_per_client, os.cpu_count() or 1
    if not (share > 0 and math.isfinite(share)):
        raise UserError(f"engine.cpus_per_client must be a positive number, got {share}")
    if engine.name != "inline" and engine.address is None and share > there:
        raise UserError(f"engine.cpus_per_client must be at most {there}, the CPUs of this machine, got {share:g}")
    if share > 1024:
        raise UserError(f"engine.cpus_per_client must be at most 1024, got {share:g}")
    if engine.name != "inline" and share > 1 and share % 1:
        raise UserError(f"engine.cpus_per_client must be a whole number or below 1, as Ray counts, got {share:g}")


def _check_compile(config: Config) -> None:
    if not config.compile:
        return
    if config.engine.stack > 1:
        raise UserError(f"compile=true cannot go with engine.stack={config.engine.stack}; choose one of the two")
    on_gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    language, usual = ("C", ("CC", "gcc", "clang")) if on_gpu else ("C++", ("CXX", "g++"))
    variable, *compilers = usual
    if variable in os.environ:
        compilers = [os.environ[variable]]
    if not any(map(shutil.which, compilers)):
        raise UserError(
            f"compile=true needs a {language} compiler, and there is no {' or '.join(compilers)} here; install one, or "
            "use compile=false"
        )


def _check_gpus(config: Config) -> None:
    share = config.engine.gpus_per_client
    wrong = share != "auto" if isinstance(share, str) else not (share >= 0 and math.isfinite(share))
    if wrong:
        raise UserError(f"engine.gpus_per_client must be auto or a number of GPUs from 0, got {shown(share)}")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not there and config.device == "cuda":
        raise UserError("device=cuda asks for a GPU, but PyTorch sees none here; use device=cpu or device=auto")
    if isinstance(share, str) or share == 0:
        return
    if share > there:
        seen = f"{there} here" if there else "none here; use auto or 0"
        raise UserError(f"engine.gpus_per_client={share:g} asks for more GPUs than PyTorch sees: {seen}")
    if config.engine.name != "inline" and share > 1 and share % 1:
        raise UserError(f"engine.gpus_per_client must be a whole number or below 1, as Ray counts, got {share:g}")
