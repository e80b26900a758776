"""What the steps, rounds and models of an experiment cost: bits, floating-point operations, simulated time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property

from compressors import BatchShape
from flsplit.assembly.building import Assembly
from flsplit.ledger.budget import Budget
from flsplit.ledger.moves import ModelSize
from flsplit.ledger.prices import PriceList, Tally, base_layout
from flsplit.network import Clock, Flops, Work
from flsplit.network.flops import count
from flsplit.split.messages import Proposal, Uplink
from flsplit.split.passage import Route
from flsplit.split.stages import Stages


class Costs:
    """Those of one plan; each is worked out once.

    Args:
        assembly: of the plan.
    """

    def __init__(self, assembly: Assembly) -> None:
        self._assembly, self._plan = assembly, assembly.plan
        self.config = assembly.config

    def prices(self, client: int) -> PriceList:
        """What a client's steps cost."""
        return self._prices(self._assembly.profile(client).ratio)

    @cached_property
    def _prices(self) -> Callable[[float | None], PriceList]:
        """At a client's own ratio, or (None) at the ratio of all; each made once."""
        return cache(lambda ratio: PriceList(self._assembly.stages_at(ratio), split=self._plan.split))

    def route(self, client: int, shape: BatchShape) -> Route:
        """Layouts of a client's messages."""
        return self._stages(client).route(shape)

    def resent(self, client: int, shape: BatchShape, message: Proposal | Uplink) -> tuple[int, int]:
        """Bits of a client's message and its answer that a channel has lost and sent again, up and down.

        Args:
            client: who.
            shape: of the batch, its groups included.
            message: that it has sent.
        """
        if not self._plan.split:
            return 0, 0
        stages, key = self._stages(client), (client, message.round, message.step)
        if isinstance(message, Uplink):
            return stages.resent(shape, key=key)
        assert stages.exchange is not None
        return stages.exchange.resent(shape, key=key)

    @cached_property
    def clock(self) -> Clock | None:
        """Tells simulated time; None where no network is configured."""
        network, seed = self.config.network_config, self.config.seed
        if network is None:
            return None
        return Clock(
            network, cache(lambda client: network.device(client, seed, vars(self._assembly.profile(client)))), seed
        )

    def work(self, client: int, size: int) -> Work:
        """What a step of so many samples asks of a client, its link and the server; at most, see `steps`."""
        ratio = self._assembly.profile(client).ratio
        prices, flops = self._prices(ratio), self._flops(ratio, size)
        _, shape = self._stages(client).bounds(self._assembly.shape(size))
        price, before = prices.step(shape), prices.exchange(shape)
        if not self._plan.split:  # the client has all of it, and the order of its parts makes no difference
            return Work(forward=flops.forward + flops.server, backward=flops.backward, server=0, up=0, down=0)
        return Work(
            forward=flops.forward, backward=flops.backward, server=flops.server, up=price.uplink_bits,
            down=price.downlink_bits, proposal=before.uplink_bits, grouping=before.downlink_bits,
        )  # fmt: skip

    @property
    def cohort(self) -> bool:
        """Whether the clients of a step are compressed as one."""
        return self._assembly.cohort

    def joint_server(self, size: int) -> int:
        """Operations of the server in a step of a cohort with so many samples in all."""
        return self._flops(None, size).server

    @cached_property
    def _flops(self) -> Callable[[float | None, int], Flops]:
        """Of a batch at a client's own ratio, or (None) at the ratio of all; each counted once."""
        client, server = self._assembly.client_side(), self._assembly.server_side()

        @cache
        def counted(ratio: float | None, size: int) -> Flops:
            return count(
                client.model, server.model, self._assembly.stages(ratio), self._assembly.shape(size),
                image_size=self._plan.image_size,
            )  # fmt: skip

        return counted

    def steps(self, client: int, limit: int | None = None) -> list[Tally]:
        """What the steps of a client's round cost, one by one; at most so much, where that depends on their values.

        Args:
            client: who.
            limit: bits that it may still send; None without a budget. There are all steps that begin below it, where
                they cost as little as they can.
        """
        samples, group = len(self._assembly.client_rows[client]), self._assembly.group_size(client)
        sizes = self._assembly.profile(client).step_sizes(self.config, samples, group)
        bounds = [self.prices(client).bounds(self._assembly.shape(size)) for size in sizes]
        steps = [most for _, most in bounds]
        if limit is None or self.budget is None:
            return steps
        return steps[: self.budget.affordable([least for least, _ in bounds], limit)]

    @cached_property
    def budget(self) -> Budget | None:
        """What the clients may send, if the configuration limits it."""
        return self.budget_of([len(rows) for rows in self._assembly.client_rows])

    def budget_of(self, samples: Sequence[int]) -> Budget | None:
        """The budget of clients that train on so many samples each."""
        if self.config.budget.base_epochs is None:
            return None
        base = base_layout(self._assembly.shape(1))
        down = base.downlink_bits if self._assembly.stages_at(None).answers else 0
        return Budget(
            self.config.budget, base_bits=base.uplink_bits + down, samples=samples, moves=self._plan.moves,
            model_size=self.model_size,
        )  # fmt: skip

    @cached_property
    def model_size(self) -> ModelSize:
        """Of the models that the strategy moves."""
        sides = [self._assembly.client_side(), *([self._assembly.server_side()] if self._plan.moves.whole else [])]
        config = self.config
        counted = (self._assembly.adjustment is not None and self._plan.split) or (
            config.sampling == "balanced" and config.taking_part < config.clients
        )
        told = self._assembly.classes if counted else 0  # what a client has of each label, which it says once
        return sum((ModelSize(travels=side.size, stays=side.stays) for side in sides), ModelSize(travels=0, told=told))

    def expected_rounds(self) -> int | None:
        """How many rounds the run has: exactly without a budget, else about."""
        if self.budget is None:
            return self.config.rounds
        steps = [self.steps(client) for client in range(self.config.clients)]
        about = self.budget.rounds(steps, self.config.taking_part)
        return about if self.config.rounds is None else min(about, self.config.rounds)

    def _stages(self, client: int) -> Stages:
        return self._assembly.stages_at(self._assembly.profile(client).ratio)
