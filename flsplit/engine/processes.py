"""Client processes on Ray: who works on which message, and what happens when one dies.

One thread decides. It sleeps until something has happened: a message to send, a reply, news, an end. Ray calls back
when a call is over, so nothing is looked for. Beside its messages every process has one call open at all times, for
news, which fails when the process dies; so the end of an idle one is noticed as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, cast

import ray
from flwr.app import Error, Message
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from flsplit.engine import idle, keeping
from flsplit.engine.grid import RAISED
from flsplit.engine.process import NEWS, Outcome, actor_class
from flsplit.errors import RunFailed

TOGETHER = 10.0  # seconds that the first process waits at the start for the others, so that all begin warm
PATIENCE = 60.0  # seconds without any process after which Ray is asked whether it has room for one
AHEAD = 2  # messages that a process is given at a time
DEATHS = 5  # of processes on their start, with none that lives, that are too many


@dataclass(eq=False)
class Member:
    """A client process as seen from here."""

    room: PlacementGroup
    actor: Any
    news: Any = None  # the call that is open for them
    up: bool = False
    dead: bool = False
    messages: list[Message] = field(default_factory=list)  # that it has been given: one at hand, one after it
    since: float = 0.0  # when it began with the first of them
    late: bool = False  # whether that took longer than it may, and the process is being ended
    served: set[int] = field(default_factory=set)  # nodes whose last message it has worked on
    round: int = -1  # of the hub, that it was last given models in
    has: set[Any] = field(default_factory=set)  # and these

    def lives(self) -> bool:
        """Whether nothing is known of its end, which fails the open call for news."""
        over, _ = ray.wait([self.news], timeout=0)
        try:
            ray.get(over)
        except RayActorError:
            return False
        except Exception:  # of the process, which has lived to raise it
            pass
        return True

    def end(self) -> None:
        """End the process, and give back the room that it had."""
        ray.kill(self.actor)
        remove_placement_group(self.room)


class Processes:
    """A pool of client processes.

    Args:
        client_app: what they run.
        count: how many.
        resources: of each, as Ray counts them (`CPU`, `GPU`).
        submit: hands a message to a member's actor; returns the reference of `Process.run`.
        answered: called with a reply, and the outcome it came with if there is one.
        noted: called with the notes of news.
        failed: called once, with why no message will be answered any more.
    """

    def __init__(
        self, client_app: Any, count: int, resources: dict[str, float], *,
        submit: Callable[[Member, Message], Any],
        answered: Callable[[Message, Outcome | None], None],
        noted: Callable[[Iterable[Any]], None],
        failed: Callable[[RunFailed], None],
    ) -> None:  # fmt: skip
        self._resources, self._submit, self._answered = resources, submit, answered
        self._noted, self._failed = noted, failed
        self._app = ray.put(client_app)
        self._actor = actor_class()
        self._pending: list[Message] = []
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._deaths = 0
        self._together: float | None = None  # until when the first waits; None: before it is up
        self._started = False  # whether messages go out
        self._members: list[Member] = []
        self._kind = client_app, tuple(sorted(resources.items()))
        left = cast(list[Member], idle.take(self._kind))
        idle.end()  # the others, whose room may be needed
        living = [member for member in left if member.lives()][:count]
        for member in left:
            if member in living:
                self._adopt(member)
            else:
                member.end()
        if living:
            self._together = time.monotonic() + TOGETHER
        for _ in range(len(living), count):
            self._start(placement_group([dict(resources)]))
        self._started = all(member.up for member in self._members)
        self._thread = Thread(target=self._work, name="flsplit-processes", daemon=True)
        self._thread.start()

    def send(self, messages: Iterable[Message]) -> None:
        """Have messages worked on, in ascending order of nodes."""
        fresh = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        self._events.put(partial(self._pending.extend, fresh))

    def stop(self) -> None:
        """End all processes, but for idle ones that are kept for the next run."""
        self._events.put(None)
        self._thread.join()
        keep = [member for member in self._members if keeping() and member.up and not member.messages]
        idle.leave(self._kind, keep)
        for member in self._members:
            if member not in keep:
                member.end()

    def _start(self, room: PlacementGroup) -> None:
        """Start a process where there is room for it, now or later."""
        place = PlacementGroupSchedulingStrategy(room, placement_group_bundle_index=0)
        counts = {"num_cpus": self._resources["CPU"], "num_gpus": self._resources.get("GPU", 0)}
        member = Member(room, self._actor.options(**counts, scheduling_strategy=place).remote(self._app))
        self._members.append(member)
        self._when_done(member.actor.ready.remote(), self._is_up, member)
        self._hear(member)

    def _adopt(self, left: Member) -> None:
        """Go on with a process that a run before has left."""
        member = Member(left.room, left.actor, left.news, up=True)
        self._members.append(member)
        self._when_done(member.news, self._has_news, member)

    def _hear(self, member: Member) -> None:
        member.news = member.actor.news.options(concurrency_group=NEWS).remote()
        self._when_done(member.news, self._has_news, member)

    def _when_done(self, call: Any, then: Callable[..., None], *values: Any) -> None:
        """Have the thread do something with the future of a call when it is over."""
        call.future().add_done_callback(lambda future: self._events.put(partial(then, *values, future)))

    def _work(self) -> None:
        try:
            while True:
                try:
                    event = self._events.get(timeout=self._pause())
                except Empty:
                    self._look()
                else:
                    if event is None:
                        return
                    event()
                self._hand_out()
        except RunFailed as error:
            self._failed(error)
        except Exception as error:
            self._failed(RunFailed(f"the engine cannot go on: {type(error).__name__}: {error}"))

    def _pause(self) -> float | None:
        """Seconds after which something is due though nothing has happened."""
        if self._started and any(member.up for member in self._members):
            ends = [_end(member) for member in self._members if member.messages and not member.late]
            return max(0.0, min(ends) - time.monotonic()) if ends else None
        if self._started:
            return PATIENCE
        return PATIENCE if self._together is None else max(0.0, self._together - time.monotonic())

    def _look(self) -> None:
        """Nothing has happened for a while: go on with the processes that are up, or see why there is none.

        A process that takes longer for a message than the message may live is ended; its death is the answer.
        """
        for member in self._members:
            if member.messages and not member.late and _end(member) <= time.monotonic():
                member.late = True
                ray.kill(member.actor)
        if any(member.up for member in self._members):
            self._started = True
        elif not any(member.room.wait(1) for member in self._members):
            raise RunFailed(f"no client process has started within {PATIENCE:g} s: {lack(self._resources)}")

    def _is_up(self, member: Member, future: Any) -> None:
        if future.exception() is not None:
            return self._has_died(member, future.exception())
        member.up, self._deaths = True, 0
        if self._together is None:
            self._together = time.monotonic() + TOGETHER
        self._started = self._started or all(other.up for other in self._members)
        return None

    def _has_news(self, member: Member, future: Any) -> None:
        if isinstance(future.exception(), RayActorError):
            return self._has_died(member, future.exception())
        if future.exception() is None:
            number, notes = future.result()
            if any(message.metadata.message_id == number for message in member.messages):
                self._noted(notes)
        return self._hear(member)

    def _has_answered(self, member: Member, message: Message, future: Any) -> None:
        error = future.exception()
        if isinstance(error, RayActorError):
            self._has_died(member, error)
        if message not in member.messages:
            return  # it was taken back
        member.messages.remove(message)
        member.since = time.monotonic()
        if error is None:
            outcome = future.result()
            self._hand_out()  # before anything else, for the process may be idle
            self._answered(outcome[0], outcome)
            return
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if member.late:
            reason = f"it took longer than {message.metadata.ttl:g} s (client_timeout), and its process was ended"
        self._answered(Message(Error(RAISED, reason), reply_to=message), None)

    def _has_died(self, member: Member, error: BaseException) -> None:
        """Start another process in the place of one that is dead.

        The message at hand is answered by its own call's end; the one after it has not begun, and goes to another.
        """
        if member.dead:
            return
        if not member.up:
            self._deaths += 1
        if self._deaths > DEATHS * len(self._members) and not any(other.up for other in self._members):
            raise RunFailed(f"client processes die while they start: {' '.join(str(error).split())}")
        member.dead, member.up = True, False
        self._pending[:0] = member.messages[1:]
        del member.messages[1:]
        self._members.remove(member)
        ray.kill(member.actor)  # where only the way to it is gone
        self._start(member.room)

    def _hand_out(self) -> None:
        """Give every idle process a message, if there are any: its own clients' first, else the first there is.

        Where many are left, one more, so that no process waits for the next; at the end that might keep a message from
        a process that is idle sooner.
        """
        if not self._started:
            return
        for given in range(AHEAD):
            for member in self._members:
                ready = member.up and len(member.messages) == given
                if ready and (not given or len(self._pending) > len(self._members)):
                    self._give_next(member)

    def _next_for(self, member: Member) -> Message | None:
        busy = {message.metadata.dst_node_id for other in self._members for message in other.messages}
        free = [message for message in self._pending if message.metadata.dst_node_id not in busy]
        others = set[int]().union(*(other.served for other in self._members if other is not member and other.up))
        ranks = {True: 0, False: 1}
        return min(
            free, default=None,
            key=lambda message: (
                ranks[message.metadata.dst_node_id in member.served], message.metadata.dst_node_id in others
            ),
        )  # fmt: skip

    def _give_next(self, member: Member) -> None:
        message = self._next_for(member)
        if message is None:
            return
        self._pending.remove(message)
        for other in self._members:
            other.served.discard(message.metadata.dst_node_id)
        member.served.add(message.metadata.dst_node_id)
        if not member.messages:
            member.since = time.monotonic()
        member.messages.append(message)
        self._when_done(self._submit(member, message), self._has_answered, member, message)


def _end(member: Member) -> float:
    """When the message at hand has taken as long as it may."""
    return member.since + member.messages[0].metadata.ttl


def lack(resources: dict[str, float]) -> str:
    """What each process asks of Ray, and what Ray has, in words."""
    there, free = ray.cluster_resources(), ray.available_resources()
    asked = " and ".join(f"{count:g} {name}" for name, count in resources.items() if count)
    has = " and ".join(f"{there.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in resources)
    return f"each asks for {asked}, the cluster has {has}"
