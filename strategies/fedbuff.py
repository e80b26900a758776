"""FedBuff (Nguyen et al., AISTATS 2022, arXiv 2106.06639): the server steps when so many clients have reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from flsplit.errors import UserError
from flsplit.server.aggregation import RunningMean
from flsplit.server.federation import Federation, SideState
from flsplit.server.strategy import Strategy

Models = tuple[Tensor, Tensor, Tensor | None]  # weights client-side and server-side, Adam's moments of the second


class FedBuff(Strategy):
    """SplitFed V1 without waiting: clients train at their own pace, from the newest models there were as they began.

    A round is a step of the server: the mean of the changes of `buffer` clients, in the order in which they report in
    simulated time, each weighted by 1 / (1 + staleness)^`staleness_power`, staleness being the steps of the server
    since it began. Who has reported begins again when the server has stepped: before that, there are no newer models.
    Buffers, which are statistics, and Adam's moments of the server-side model become the mean of what the clients
    bring.
    A client's models are counted when it reports; of those who are under way when the run ends, none are.

    Args:
        buffer: K, reports that make a step; fewer where fewer clients are under way.
        server_lr: the step's size.
        staleness_power: 0.5 in the paper; 0 weights all alike.
        options: see `Strategy`.

    Raises:
        UserError: for a value that cannot be.
    """

    placements: ClassVar[tuple[str, ...]] = ("replica",)
    keeps_time = needs_network = True

    def __init__(
        self, *, buffer: int = 2, server_lr: float = 1.0, staleness_power: float = 0.5, **options: Any
    ) -> None:
        super().__init__(**options)
        if buffer < 1:
            raise UserError(f"strategy.buffer must be at least 1, got {buffer}")
        if not 0 < server_lr < float("inf"):
            raise UserError(f"strategy.server_lr must be a number above 0, got {server_lr:g}")
        if not 0 <= staleness_power < float("inf"):
            raise UserError(f"strategy.staleness_power must be a number of at least 0, got {staleness_power:g}")
        if self.aggregator.name != "fedavg":
            raise UserError(f"strategy.aggregator must be fedavg for fedbuff, got {self.aggregator.name}")
        self._buffer, self._server_lr, self._power = buffer, server_lr, staleness_power
        self._version = 0
        # client -> its end, the version of its models, its round, its beginning
        self._flights: dict[int, tuple[float, int, int, float]] = {}
        self._models: dict[int, Models] = {}  # versions that somebody trains from

    def state_dict(self) -> dict[str, Any]:
        """See `Strategy`."""
        return {"version": self._version, "flights": dict(self._flights), "models": dict(self._models)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Strategy`."""
        self._version, self._flights, self._models = state["version"], state["flights"], state["models"]

    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """See `Strategy`."""
        now = fed.now or 0.0
        current = fed.client_model.weights, fed.server_model.weights
        self._models[self._version] = *current, fed.server_model.moments
        for client in clients:
            if client not in self._flights:
                self._flights[client] = now + fed.seconds(client), self._version, fed.round, now
        done = sorted(self._flights, key=lambda client: (self._flights[client], client))[: self._buffer]
        landed = {client: self._flights.pop(client) for client in done}
        fed.now = max([now, *(end for end, *_ in landed.values())])
        starts = {c: self._start(version) for c, (_, version, *_) in landed.items()}
        begun = {client: number for client, (*_, number, _) in landed.items()}
        since = {client: beginning for client, (*_, beginning) in landed.items()}
        change, count, moments = [current[0] * 0, current[1] * 0], 0, RunningMean()
        statistics = [c[q:] * 0 for c, q in zip(current, fed.trained)]  # no step goes along buffers
        for report in fed.train(done, starts=starts, begun=begun, since=since):
            brought = fed.brought(report)
            if report.error is None:
                version, replica = landed[report.client][1], brought[1]
                start = self._models[version][:2]
                weight = (1 + self._version - version) ** -self._power
                for side, state in enumerate(brought):
                    assert state is not None
                    change[side] += weight * (state.weights - start[side])
                    statistics[side] += state.weights[fed.trained[side] :]
                if replica is not None and replica.moments is not None:
                    moments.add([replica.moments], 1)
                count += 1
        if count:
            new = [weights + self._server_lr / count * step for weights, step in zip(current, change)]
            for weights, q, total in zip(new, fed.trained, statistics):
                weights[q:] = total / count
            fed.client_model, fed.server_model = SideState(new[0]), SideState(new[1], moments.value())
        self._version += 1
        used = {version for _, version, *_ in self._flights.values()}
        self._models = {version: models for version, models in self._models.items() if version in used}

    def _start(self, version: int) -> tuple[SideState, SideState]:
        client, server, moments = self._models[version]
        return SideState(client), SideState(server, moments)
