"""Simulated time of a run: what clients' rounds take, and what that makes of the round's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from flsplit.assembly import Costs
from flsplit.ledger.moves import FLOAT_BITS, ModelSize, Moves
from flsplit.network import Clock, Spent, Work
from flsplit.network.clock import SCHEDULES, Round
from flsplit.transport.task import Report, Sent


class Timekeeper:
    """Knows every client's device, and what its steps and its models' moves ask of it.

    Args:
        costs: of the run, which has a network.
        clock: its clock.
        moves: models that the strategy moves.
        size: of one of them.
    """

    def __init__(self, costs: Costs, clock: Clock, moves: Moves, size: ModelSize) -> None:
        self._costs, self._clock, self._moves, self._size = costs, clock, moves, size

    @property
    def deadline(self) -> float | None:
        """Seconds that a round lasts at most; None for as long as it takes."""
        return self._clock.network.round_deadline_s

    @property
    def _drops(self) -> bool:
        """Whether clients that would be late are left out, rather than counted by what they manage."""
        return self._clock.network.on_deadline == "drop"

    def seconds(self, client: int, number: int, *, first: bool, limit: int | None = None) -> float:
        """How long a whole round of a client takes that waits for nobody.

        Args:
            client: who.
            number: of the round in which it begins.
            first: whether it is the client's first.
            limit: bits that it may send; None without a budget.
        """
        return self._clock.timed(self._part(client, first=first, limit=limit), number).alone

    def by_the_deadline(
        self, clients: Sequence[int], number: int, attempt: int, *, known: Collection[int],
        limits: Mapping[int, int] | None,
    ) -> tuple[dict[int, int] | None, dict[int, int]]:  # fmt: skip
        """How many steps clients have time for, and who is left out.

        Args:
            clients: who.
            number: of the round.
            attempt: at it.
            known: clients that have taken part before.
            limits: bits that each may send; None without a budget.

        Returns:
            steps by client, None without a deadline; and of clients that would be late, the bits of models that come to
            them before.
        """
        if self.deadline is None:
            return None, {}
        most, late = {}, {}
        for client in clients:
            part = self._part(client, first=client not in known, limit=None if limits is None else limits[client])
            most[client] = self._clock.affordable(part, number, attempt)
            if not most[client] or (self._drops and most[client] < len(part.steps)):
                late[client] = self._came(part, number, attempt, first=client not in known)
        return most, late

    def _came(self, part: Round, number: int, attempt: int, *, first: bool) -> int:
        """Bits of models that come to a client by the deadline; not all if it could not say of itself by then."""
        came = self._clock.downloaded(replace(part, up=0), number, attempt)
        told = self._moves.up_bits(self._size, first=first, came_up=False)
        if came == part.down and self._clock.downloaded(replace(part, up=told), number, attempt) < came:
            return came - 1  # it knows its models by the next round as little as with any other bit missing
        return came

    def of(
        self, schedule: str, reports: Sequence[Report], number: int, attempt: int, *, new: Collection[int],
        limits: Mapping[int, int] | None, late: Collection[int] = (), begun: Mapping[int, int] | None = None,
        lasted: Mapping[int, float] | None = None,
    ) -> tuple[float, dict[int, Spent]]:  # fmt: skip
        """What clients' part in a round took.

        Args:
            schedule: how they follow each other: a key of `SCHEDULES`.
            reports: of them, in their order.
            number: of the round.
            attempt: at it.
            new: clients that take part for the first time.
            limits: bits that each may send; None without a budget.
            late: clients that were stopped by the deadline.
            begun: the round in which a client began, where it is another.
            lasted: seconds from each client's beginning to the end of the round, where they did not begin together.

        Returns:
            simulated seconds of all together, and how each client spent them.
        """
        rounds = []
        for report in reports:
            limit = None if limits is None else limits[report.client]
            rounds.append(self._part(report.client, first=report.client in new, limit=limit, report=report))
        if schedule == "joint" and self._costs.cohort:
            rounds = self._served_as_one(rounds, reports)
        parts = [self._clock.timed(part, (begun or {}).get(part.client, number), attempt) for part in rounds]
        whole, _ = SCHEDULES[schedule](parts)
        if late and self.deadline is not None:
            whole = max(whole, self.deadline)
        spent = {}
        for report, timed in zip(reports, parts):
            there = whole if lasted is None else lasted[report.client]
            busy = timed.spent.compute + timed.spent.transfer  # with `pipeline` some of both at a time
            spent[report.client] = replace(timed.spent, waiting=max(0.0, there - busy))
        return whole, spent

    def _part(self, client: int, *, first: bool, limit: int | None, report: Report | None = None) -> Round:
        """A client's part: what it has done, or without a report what it would do."""
        per_step = FLOAT_BITS * self._size.travels * self._moves.step / 2  # of both ways
        works = [
            replace(self._costs.work(client, step.samples), up_model=per_step, down_model=per_step)
            for step in self._costs.steps(client, limit)
        ]
        came_up, came_down = True, None
        if report is not None:
            works = [_as_sent(work, sent) for work, sent in zip(works, report.sent)]
            came_up, came_down = report.came_up, report.came_down
        down, whole = self._moves.arrived(self._size, first=first, came_down=came_down)
        up = self._moves.up_bits(self._size, first=first and whole, came_up=came_up)
        return Round(client=client, steps=works, down=down, up=up)

    def _served_as_one(self, rounds: Sequence[Round], reports: Sequence[Report]) -> list[Round]:
        """A cohort's steps with the server's work on all their samples together; the first client has it."""
        sizes = {
            report.client: [step.samples for step in self._costs.steps(report.client)][: report.tally.steps]
            for report in reports
        }
        served = {}
        for number in range(max(map(len, sizes.values()), default=0)):
            there = [client for client, own in sizes.items() if number < len(own)]
            served[there[0], number] = self._costs.joint_server(sum(sizes[client][number] for client in there))
        return [
            replace(part, steps=[
                replace(work, server=served.get((part.client, number), 0)) for number, work in enumerate(part.steps)
            ])
            for part in rounds
        ]  # fmt: skip


def _as_sent(work: Work, sent: Sent) -> Work:
    """The work of a step whose messages have crossed; of one that was not finished, what came before it failed."""
    return replace(
        work, up=sent.up, down=sent.down, proposal=sent.proposal, grouping=sent.grouping,
        server=work.server if sent.finished or sent.up else 0,
        backward=work.backward * sent.finished, up_model=work.up_model * sent.finished,
        down_model=work.down_model * sent.finished,
    )  # fmt: skip
