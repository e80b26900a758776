"""What is refused once data and model are known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from torch import nn

from compressors import Compressor, Stage
from flsplit.assembly import Assembly, Costs
from flsplit.config.schema import Config
from flsplit.errors import UserError
from flsplit.experiment import probe
from flsplit.server.strategy import Strategy
from flsplit.split import memory
from flsplit.split.side import Side, unkept


def check(strategy: Strategy, assembly: Assembly, samples: Sequence[int]) -> None:
    """Refuse what cannot be run.

    Args:
        strategy: of the run.
        assembly: of the run; nothing of it needs to be on the disk.
        samples: that each client trains on.

    Raises:
        UserError: naming the key.
    """
    _check_state(assembly)
    config, sides = assembly.config, (assembly.client_side(), assembly.server_side())
    _check_compressors(assembly)
    _check_sides(strategy, assembly, *sides)
    probe.check(assembly, *sides)
    _check_time(strategy, config)
    _check_budget(Costs(assembly), samples)
    _check_memory(assembly, sides, most=max(samples))
    if config.engine.stack > 1:
        _check_stack(strategy, assembly)


def _check_compressors(assembly: Assembly) -> None:
    config, (tokens, width) = assembly.config, assembly.activations
    config.check_compressor(batch_size=config.batch_size, tokens=tokens, width=width)
    for client in assembly.plan.profiles:
        profile = assembly.profile(int(client))
        if profile.ratio is not None and assembly.cohort:
            raise UserError(
                "client_profile: ratio must be empty with compressor.scope=cohort, which has one ratio for all clients"
            )
        size = profile.batch_size or config.batch_size
        config.check_compressor(profile.ratio, batch_size=size, tokens=tokens, width=width)
        assembly.stages_at(profile.ratio)


def _check_sides(strategy: Strategy, assembly: Assembly, client: Side, server: Side) -> None:
    config, compressor = assembly.config, client.stages.compressor
    if compressor.needs_scores and not assembly.parts[0].has_scores:
        raise UserError(
            f"compressor={compressor.name} needs the attention of a class token, which {config.model.name} does not "
            f"have; choose another, such as topk, or a Vision Transformer that classifies from its class token"
        )
    if shared := {id(p) for p in assembly.parts[0].parameters()} & {id(p) for p in assembly.parts[1].parameters()}:
        raise UserError(f"model.family={config.model.family}: {len(shared)} parameters are on both sides of the cut")
    if (found := assembly.logits.shape[-1]) != assembly.classes:
        raise UserError(f"{config.model.name} gives {found} numbers for the {assembly.classes} labels of the data")
    if not client.parameters and not server.parameters:
        raise UserError(
            "model.tune and model.tune_server leave nothing to train; one of them must be another, such as all"
        )
    if client.has_own and strategy.one_client_model and strategy.personal_buffers:
        raise UserError(
            f"strategy.buffers must be average for strategy={strategy.name} as it is, which trains one client-side "
            "model of all clients"
        )
    if client.has_own and strategy.one_client_model:
        raise UserError(
            f"strategy={strategy.name} trains one client-side model of all clients, so no stage can keep state at each "
            "of them; quantizer and channel must be without, or the strategy another"
        )


def _check_state(assembly: Assembly) -> None:
    """Refuse state that a side does not keep as it is: it would be another after a resume, and in another process."""
    for side, model in zip(("client", "server"), assembly.parts):
        _check_module(f"the {side}-side model of {assembly.config.model.name}", model)
    stages = assembly.stages()  # new ones, as the models are: a `Side` brings all floats to 32 bits
    parts: list[Compressor | Stage] = [stages.compressor, *stages.behind]
    for part, side in product(parts, ("client", "server")):
        _check_module(f"{part.name}'s {side}_half", getattr(part, f"{side}_half"))


def _check_module(what: str, module: nn.Module | None) -> None:
    for at, tensor in {} if module is None else unkept(module).items():
        trained = isinstance(tensor, nn.Parameter)
        hint = "convert it" if trained else "register it as such, or with persistent=False if it never changes"
        raise UserError(
            f"{what}: {'weight' if trained else 'buffer'} {at} is of {str(tensor.dtype).removeprefix('torch.')}, "
            f"but state must be of float32; {hint}"
        )


def _check_budget(costs: Costs, samples: Sequence[int]) -> None:
    budget, config = costs.budget_of(samples), costs.config
    if budget is not None and not budget.able({}, (), config.taking_part):
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
    if strategy.keeps_time:
        raise UserError(f"engine.stack must be 1 for {strategy.name}, whose clients begin at times of their own")
    if strategy.placement != "replica":
        raise UserError(
            f"engine.stack must be 1 for {strategy.name} with strategy.placement={strategy.placement}: "
            "clients are stacked where each steps a replica of the server-side model (strategy.placement=replica)"
        )
    try:
        assembly.stacks()
    except UserError as error:
        raise UserError(f"engine.stack must be 1: {error}") from error
