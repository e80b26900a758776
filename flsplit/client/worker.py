"""What a client process builds once and keeps: modules, data and kernels, which serve many clients."""

from __future__ import annotations

from functools import cached_property

from flsplit.assembly import Assembly, Costs, assembly_for, use_threads
from flsplit.split.host import ServerHost
from flsplit.split.side import Side
from flsplit.split.stacked.host import StackedHost
from flsplit.split.stacked.stack import Stack


class Worker:
    """A process that runs clients of one experiment."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly, self.costs = assembly, Costs(assembly)
        self._sides: list[Side] = []

    @cached_property
    def host(self) -> ServerHost:
        """This process's own host, for server-side replicas."""
        return self.assembly.host()

    @cached_property
    def stacks(self) -> tuple[Stack, StackedHost]:
        """Lanes for as many clients as are stacked, client sides and server sides."""
        return self.assembly.stacks()

    def sides(self, count: int) -> list[Side]:
        """So many client sides, each for one client at a time."""
        while len(self._sides) < count:
            self._sides.append(self.assembly.client_side(trained=True))
        return self._sides[:count]

    def warm_up(self) -> None:
        """Build what every round needs, so that the first one costs no more than the others."""
        use_threads(self.assembly.config)
        _ = self.assembly.pipeline, self.assembly.client_rows
        if self.assembly.config.engine.stack > 1:
            _ = self.stacks
            return
        self.sides(1)
        if self.assembly.plan.placement == "replica":
            _ = self.host


_workers: dict[str, Worker] = {}


def worker_for(plan: str) -> Worker:
    """This process's worker for a plan (part of the per-process cache)."""
    if plan not in _workers:
        _workers.clear()
        _workers[plan] = Worker(assembly_for(plan))
    return _workers[plan]
