"""What a run passes on its way from ready to started: lanes of one call, the pace of one call, named limits.

A gate either lets a run in at once, or keeps it and gives it to `opened` when its turn has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from upwell.core.errors import ConcurrencySlotAcquisitionError
from upwell.core.lifecycle import HAS_CRASHED, Outcome
from upwell.core.limits import LeakyBucket, Slots
from upwell.engine.clock import clock
from upwell.engine.future import RunFuture
from upwell.engine.limits import NamedLimit, Ticket

Run = RunFuture[Any]
Opened = Callable[[Run], None]


class Gate(Protocol):
    """All methods are called on the loop's thread.

    is_worth_recording: a run that waits here waits for others than those that were started with it.
    """

    is_worth_recording: ClassVar[bool]

    def enter(self, run: Run, opened: Opened) -> bool:
        """Let the run in now, or keep it until `opened(run)`."""
        ...

    def leave(self, run: Run) -> None:
        """The run has ended, or waits for something else: its place is free."""

    def forget(self, run: Run) -> None:
        """The run will not come in any more."""

    def reason(self) -> str:
        """Why a run waits here, for a person."""
        ...


class Lane:
    """At most so many runs at once."""

    __slots__ = ("_name", "_slots", "_waiting")
    is_worth_recording = False

    def __init__(self, capacity: int, name: str) -> None:
        self._slots: Slots[Run] = Slots(capacity)
        self._waiting: dict[Run, Opened] = {}
        self._name = name

    def enter(self, run: Run, opened: Opened) -> bool:
        if self._slots.take(run):
            return True
        self._waiting[run] = opened
        return False

    def leave(self, run: Run) -> None:
        for waiting in self._slots.give_back():
            self._waiting.pop(waiting)(waiting)

    def forget(self, run: Run) -> None:
        if self._waiting.pop(run, None) is not None:
            self._slots.forget(run)

    def reason(self) -> str:
        return f"Waits for one of the {self._slots.capacity} places of {self._name}."


class Pace:
    """At most so many starts a second, evenly spaced."""

    __slots__ = ("_bucket", "_per_second", "_waiting")
    is_worth_recording = False

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._bucket = LeakyBucket(1.0, per_second)
        self._waiting: dict[Run, asyncio.TimerHandle] = {}

    def enter(self, run: Run, opened: Opened) -> bool:
        seconds = self._bucket.reserve(1.0, clock().time())
        if seconds <= 0:
            return True
        self._waiting[run] = asyncio.get_running_loop().call_later(seconds, self._due, run, opened)
        return False

    def _due(self, run: Run, opened: Opened) -> None:
        del self._waiting[run]
        opened(run)

    def leave(self, run: Run) -> None:
        pass

    def forget(self, run: Run) -> None:
        timer = self._waiting.pop(run, None)
        if timer is not None:
            timer.cancel()
            self._bucket.give_back(1.0)

    def reason(self) -> str:
        return f"Waits for its turn: {self._per_second:g} starts a second."


class LimitGate:
    """A named limit, shared with whoever else uses it, in any thread of this process.

    give_up: ends a run that can never have its slot: the store of the limit is gone, or this process was declared dead.
    """

    __slots__ = ("_give_up", "_tickets", "limit")
    is_worth_recording = True

    def __init__(self, limit: NamedLimit, give_up: Callable[[Run, Outcome], None]) -> None:
        self.limit = limit
        self._give_up = give_up
        self._tickets: dict[Run, Ticket] = {}

    def enter(self, run: Run, opened: Opened) -> bool:
        loop = asyncio.get_running_loop()
        ticket = self.limit.ticket(lambda: loop.call_soon_threadsafe(self._granted, run, opened))
        ticket.holder = run
        self._tickets[run] = ticket
        try:
            seconds = self.limit.take(ticket)
        except ConcurrencySlotAcquisitionError as error:
            loop.call_soon(self._refuse, run, error)
            return False
        if seconds is None:
            return False
        if seconds <= 0:
            return True
        ticket.timer = loop.call_later(seconds, self._granted, run, opened)
        return False

    def _granted(self, run: Run, opened: Opened) -> None:
        ticket = self._tickets.get(run)
        if ticket is None:
            return
        if ticket.error is None:
            opened(run)
        else:
            self._refuse(run, ticket.error)

    def _refuse(self, run: Run, error: Exception) -> None:
        if self._tickets.pop(run, None) is not None:
            self._give_up(run, Outcome(HAS_CRASHED, error, str(error)))

    def leave(self, run: Run) -> None:
        ticket = self._tickets.pop(run, None)
        if ticket is not None:
            self.limit.give_back(ticket)

    def forget(self, run: Run) -> None:
        ticket = self._tickets.pop(run, None)
        if ticket is not None:
            if ticket.timer is not None:
                ticket.timer.cancel()
            self.limit.abandon(ticket)

    def reason(self) -> str:
        return f"Waits for a slot of the limit {self.limit.name!r}."
