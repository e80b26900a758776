"""FedBuff (Nguyen et al., AISTATS 2022): clients never wait; the server takes a step when its buffer is full."""

from strategies import SideState, Strategy


class Buffered(Strategy):
    """Clients start from the newest models and report when they are done; a round is one step of the server.

    Who has reported starts again, if it takes part, when the server has stepped.

    Args:
        buffer: K, reports to a step.
        server_lr: of the step along the mean of the differences, each divided by sqrt(1 + staleness).
        slowest: a client's round takes 1 second for the first client and this many for the last.
    """

    def __init__(self, *, buffer: int = 2, server_lr: float = 1.0, slowest: float = 4.0, **options) -> None:
        super().__init__(**options)
        self.buffer, self.server_lr, self.slowest = buffer, server_lr, slowest
        self.version, self.flights, self.models = 0, {}, {}  # client -> (end, version); version -> weights

    def state_dict(self):
        return {"version": self.version, "flights": self.flights, "models": self.models}

    def load_state_dict(self, state):
        self.version, self.flights, self.models = state["version"], state["flights"], state["models"]

    def round(self, fed, clients):
        now = fed.now or 0.0
        self.models[self.version] = (fed.client_model.weights, fed.server_model.weights)
        for client in clients:
            pace = 1 + (self.slowest - 1) * client / max(1, len(clients) - 1)
            self.flights.setdefault(client, (now + pace, self.version))
        done = sorted(self.flights, key=lambda client: (self.flights[client], client))[: self.buffer]
        starts = {c: tuple(SideState(w) for w in self.models[self.flights[c][1]]) for c in done}
        steps, count = [0.0, 0.0], 0
        for report in fed.train(done, starts=starts):
            end, version = self.flights.pop(report.client)
            fed.now = max(fed.now or 0.0, end)
            if report.error is None:
                for side, state in enumerate(fed.brought(report)):
                    change = state.weights - self.models[version][side]
                    steps[side] = steps[side] + change / (1 + self.version - version) ** 0.5
                count += 1
        if count:
            new = (w + self.server_lr * s / count for w, s in zip(self.models[self.version], steps, strict=True))
            fed.client_model, fed.server_model = (SideState(weights) for weights in new)
        self.version += 1
        current = {version for _, version in self.flights.values()}
        self.models = {version: pair for version, pair in self.models.items() if version in current}
