"""The moving parts of one experiment, the same in every process that takes part in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache, cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressors import BatchShape
from flsplit.assembly.plan import Plan
from flsplit.config.profile import Profile
from flsplit.config.schema import Config
from flsplit.data import Dataset
from flsplit.data.clients import training_rows
from flsplit.data.pipeline import Pipeline
from flsplit.errors import UserError, options_of_the_user
from flsplit.split.adjustment import LogitAdjustment
from flsplit.split.families import ClientModel, ServerModel, weights
from flsplit.split.host import ServerHost
from flsplit.split.model import build, cut, family_of
from flsplit.split.precision import autocast
from flsplit.split.side import Side, SideState, is_trained
from flsplit.split.stacked.host import StackedHost
from flsplit.split.stacked.stack import Stack
from flsplit.split.stages import Draws, Stages, undrawn
from flsplit.split.tuning import interface as tuning
from flsplit.streams import derived_seed, global_draws, torch_stream

_LARGE = 256  # pixels of a side; a forward pass of one such image is quick, even on one core


class Assembly:
    """Data, models and sides of one plan. Building blocks are made once, sides as often as they are asked for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.config = plan.config
        self.device = torch.device(plan.device)
        self.dataset = Dataset.open(Path(plan.data))
        self.classes = len(self.dataset.classes)

    @cached_property
    def parts(self) -> tuple[ClientModel, ServerModel]:
        """Freshly initialised client-side and server-side model, to be copied; what is to be trained is marked.

        Raises:
            UserError: if they cannot be trained so.
        """
        model = self.config.model
        client, server = cut(self._whole, model.split_point, family_of(model.name, model.family))
        self._whole.to("meta")  # its weights are in the halves; names, shapes and what timm says of it stay
        if any(tensor.is_meta for part in (client, server) for tensor in (*part.parameters(), *part.buffers())):
            raise UserError(f"model.family={model.family}: the halves share weights with the model that was cut")
        ways = (model.tune, model.tune_args), (model.tune_server, model.tune_server_args)
        for side, part, (name, options) in zip(("client", "server"), (client, server), ways):
            with torch.random.fork_rng(devices=[]), options_of_the_user(), tuning.keys_of(side):
                torch.manual_seed(derived_seed(self.config.seed, "tune", side))
                tuning.build(name, **options).apply(part)
            if name != "frozen" and not is_trained(part):
                key = "model.tune" if side == "client" else "model.tune_server"
                raise UserError(f"{key}={name} trains nothing of the {side}-side model; {key}=frozen says so")
        client.watch()
        return client, server

    @cached_property
    def _whole(self) -> nn.Module:
        model = self.config.model
        return build(
            model.name, classes=self.classes, image_size=self.plan.image_size, pretrained=model.pretrained,
            seed=self.config.seed, family=model.family,
        )  # fmt: skip

    def about_weights(self) -> list[str]:
        """What is done with the file of `model.pretrained` beyond loading it, a line each."""
        path = self.config.model.pretrained
        return weights.said(self._whole, path) if isinstance(path, str) else []

    @cached_property
    def activations(self) -> tuple[int, int]:
        """(N, D): tokens and width of a sample's smashed activations.

        Raises:
            UserError: if the client-side model gives others.
        """
        size = self.plan.image_size
        z, _ = self._given(self.parts[0], 1, 3, size, size)
        if z.dim() != 3:
            raise UserError(
                f"model.family={self.config.model.family}: the client-side model gives activations of shape "
                f"{tuple(z.shape)} for one image; it must be (1, tokens, width)"
            )
        return z.shape[1], z.shape[2]

    @cached_property
    def logits(self) -> Tensor:
        """What the server-side model gives for a sample of zeros, (1, L) if it is as it should be."""
        tokens, width = self.activations
        return self._given(self.parts[1], 1, tokens, width)

    def _given(self, model: nn.Module, *shape: int) -> Any:
        """What a model gives for zeros, of which only the shape is asked: large images do not take their time."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            if self.plan.image_size > _LARGE:
                outline = copy.deepcopy(model).to("meta").eval()
                if isinstance(outline, ClientModel):
                    outline.with_scores = False
                try:
                    return outline(torch.empty(shape, device="meta"))
                except (NotImplementedError, RuntimeError):  # a model that asks for values on its way
                    pass
            return model.eval()(torch.zeros(shape))

    @cached_property
    def pipeline(self) -> Pipeline:
        """From tables to batches on the device."""
        cfg = getattr(self._whole, "pretrained_cfg", None) or {}
        half = (0.5, 0.5, 0.5)
        return Pipeline(
            image_size=self.plan.image_size, augment=self.config.augment, mean=tuple(cfg.get("mean", half)),
            std=tuple(cfg.get("std", half)), device=self.device, seed=self.config.seed,
            workers=self.config.engine.threads,
        )  # fmt: skip

    def profile(self, client: int) -> Profile:
        """How a client differs from the others."""
        return Profile(**self.plan.profiles.get(str(client), {}))

    def stages_of(self, client: int, stages: Stages) -> Stages:
        """`stages` of a side as a client has them: others, with the same halves, where it has a ratio of its own."""
        ratio = self.profile(client).ratio
        return stages if ratio is None else stages.at(self._made_at(ratio))

    def stages_at(self, ratio: float | None) -> Stages:
        """Stages at a client's own ratio, or (None) at the ratio of all, for what does not change them; made once.

        Raises:
            UserError: if they cannot be had at a ratio of a client's own.
        """
        if ratio is None:
            return self._made_at(None)
        with options_of_the_user():
            return self._made_at(None).at(self._made_at(ratio))

    @cached_property
    def _made_at(self) -> Callable[[float | None], Stages]:
        return cache(self.stages)

    @cached_property
    def cohort(self) -> bool:
        """Whether the clients of a step are compressed as one."""
        return self.config.compressor_instance().cohort is not None

    def batches(self, client: int, round: int, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The first `steps` batches of a client's round; see `Pipeline.train_batches`."""
        found = self.pipeline.train_batches(
            self.dataset.train, self.client_rows[client], client=client, round=round, **self._schedule(client)
        )
        return islice(found, steps)

    def _schedule(self, client: int) -> dict[str, Any]:
        return {**self.profile(client).schedule(self.config), "group_size": self.group_size(client)}

    def group_size(self, client: int) -> int:
        """Samples that its compressor takes together."""
        return self.stages_at(self.profile(client).ratio).compressor.group_size

    @property
    def client_rows(self) -> tuple[np.ndarray, ...]:
        """Rows of the training table that each client trains on."""
        return training_rows(self.plan.clients)

    @cached_property
    def adjustment(self) -> LogitAdjustment | None:
        """Of the logits to what labels each client has, if the strategy wants one."""
        if not self.plan.logit_adjustment:
            return None
        return LogitAdjustment(self.plan.logit_adjustment, self.label_counts)

    def label_counts(self, client: int) -> np.ndarray:
        """Samples of each class, (L,), that a client trains on."""
        return np.bincount(self.dataset.train.labels[self.client_rows[client]], minlength=self.classes)

    def shape(self, size: int) -> BatchShape:
        """Of a batch of so many samples at the cut."""
        tokens, width = self.activations
        return BatchShape(batch=size, tokens=tokens, width=width, classes=self.classes)

    def client_side(self, *, trained: bool = False) -> Side:
        """A new client side with the initial weights.

        Args:
            trained: whether it is to be trained, which `compile` and `engine.graphs` are for.
        """
        side = self._side("client")
        assert isinstance(side.model, ClientModel)
        side.model.with_scores = side.stages.compressor.needs_scores
        return self._made_fast(side) if trained else side

    def server_side(self, *, trained: bool = False) -> Side:
        """A new server side with the initial weights; see `client_side`."""
        side = self._side("server")
        return self._made_fast(side) if trained else side

    def _made_fast(self, side: Side) -> Side:
        if self.config.compile:
            side.model.compile()  # in place; it is compiled when it first goes forward
        if self.config.engine.graphs and self.device.type == "cuda":
            side.capture()
        return side

    def host(self, *, sides: int = 1) -> ServerHost:
        """A new host for server-side models, with `sides` of them made."""
        return ServerHost(
            partial(self.server_side, trained=True), autocast=self.autocast, draws=self.draws("server"),
            stages_of=self.stages_of, stream=self.stream, adjustment=self.adjustment, sides=sides,
        )  # fmt: skip

    def stacks(self) -> tuple[Stack, StackedHost]:
        """Client sides and server-side replicas of `engine.stack` clients that train as one.

        Raises:
            UserError: if model or compressor cannot be stacked.
        """
        if self._drawing:
            raise UserError(
                f"the {self._drawing[0]}-side model draws random numbers (dropout), which are a client's own by step "
                "and are not stacked"
            )
        lanes = min(self.config.engine.stack, self.config.taking_part)
        server = StackedHost(
            Stack(self.server_side(), lanes), autocast=self.autocast, stages_of=self.stages_of,
            adjustment=self.adjustment,
        )  # fmt: skip
        return Stack(self.client_side(), lanes), server

    def initial(self) -> tuple[SideState, SideState]:
        """Weights that the experiment starts from, client side and server side."""
        return self.client_side().state(), self.server_side().state()

    def autocast(self) -> AbstractContextManager[object]:
        """Context of forward passes."""
        return autocast(self.device.type, self.config.precision)

    def draws(self, side: str) -> Draws:
        """Contexts in which the model of a side draws, as dropout does: the same for a client, round and step."""
        if side not in self._drawing:
            return undrawn
        return lambda key: global_draws(self.device, self.config.seed, "model", side, *key)

    @cached_property
    def _drawing(self) -> list[str]:
        """The sides whose models draw random numbers when they are trained."""
        x, found = torch.zeros(2, 3, self.plan.image_size, self.plan.image_size), []
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for side, part in zip(("client", "server"), self.parts):
                model, before = copy.deepcopy(part), torch.get_rng_state()
                model.train(is_trained(model))
                if isinstance(model, ClientModel):
                    model.with_scores = False
                    x, _ = model(x)
                else:
                    model(x)
                if not torch.equal(before, torch.get_rng_state()):
                    found.append(side)
        return found

    def stream(self, client: int, round: int) -> Callable[[int], torch.Generator]:
        """The random streams of a client's compressor in a round, by step."""
        return partial(torch_stream, self.config.seed, "compressor", client, round)

    def _side(self, name: str) -> Side:
        """A side, `client` or `server`; what stages keep stays with the client, or goes with the server-side model."""
        stages = self.stages()
        model = copy.deepcopy(self.parts[0] if name == "client" else self.parts[1])
        halves, kept = stages.halves(name), stages.state(name)
        if name == "client":
            own = [*kept, *([model] if self.plan.personal_buffers and is_trained(model) else [])]
        else:
            own, halves = [], [*halves, *(half for half in kept if half not in halves)]
        return Side(
            model, stages, halves=halves, own=own, lr=self.config.lr, device=self.device,
            proximal_mu=self.plan.proximal_mu,
        )  # fmt: skip

    def stages(self, ratio: float | None = None) -> Stages:
        """New instances of what a batch goes through between the sides, at a client's own ratio, or that of all.

        Raises:
            UserError: if a stage cannot work with what reaches it.
        """
        with global_draws(torch.device("cpu"), self.config.seed, "stages"):  # initial weights of modules in halves
            return self._built(ratio)

    def _built(self, ratio: float | None) -> Stages:
        tokens, width = self.activations
        seed, shape = self.config.seed, self.shape(self.config.batch_size)
        compressor = self.config.compressor_instance(ratio).bind(
            tokens=tokens, width=width, prefix_tokens=self.parts[0].prefix_tokens,
            generator=torch_stream(seed, "compressor"),
        )  # fmt: skip
        behind, layout = [], compressor.layout(shape)
        for stage in self.config.stage_instances():
            if stage.ways:
                with options_of_the_user():
                    stage.bind(layout, shape, generator=torch_stream(seed, "stage", stage.name))
                layout = stage.fields(layout, "up") if "up" in stage.ways else layout
            behind.append(stage)
        with options_of_the_user():
            stages = Stages(
                compressor, behind, draw=partial(torch_stream, seed, "stage"),
                seeded=partial(global_draws, self.device, seed, "stages"),
            )  # fmt: skip
        trained = chain.from_iterable(module.parameters() for module in (self.parts[0], *stages.halves("client")))
        stages.answers = any(parameter.requires_grad for parameter in trained)
        with options_of_the_user():
            stages.route(shape)
        return stages


def use_threads(config: Config) -> None:
    """Give this process the torch threads of a client (`engine.cpus_per_client`); bits on the CPU depend on them."""
    torch.set_num_threads(config.engine.threads)


def host_from_json(plan: str) -> ServerHost:
    """Build the central host in a process of its own."""
    assembly = Assembly(Plan.from_json(plan))
    use_threads(assembly.config)
    return assembly.host()


_cache: dict[str, Any] = {}
"""The per-process cache: the `Assembly` of the plan at hand, so that a worker builds once and serves many clients."""


def assembly_for(plan: str) -> Assembly:
    """The assembly of a plan (as JSON), from this process's cache."""
    if plan not in _cache:
        _cache.clear()
        _cache[plan] = Assembly(Plan.from_json(plan))
    return _cache[plan]
