"""The event loop of a simulation: one callback at a time, of whichever thread the dice choose; its time jumps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol

from upwell.testing.clock import DeadlockError

MOST_STEPS: Final = 100_000
"""A simulation that takes more never ends."""


class Mortal(Protocol):
    """A process that is simulated."""

    @property
    def is_dead(self) -> bool: ...

    @property
    def has_turns(self) -> bool: ...


THREAD: ContextVar[tuple[Mortal, str]] = ContextVar("upwell_simulated_thread")
"""Which thread of which process a callback belongs to; none: the world's."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Runs one callback at a time: the first of a thread that the dice choose. Its time jumps."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self._now = 0.0
        self._threads: dict[Any, deque[asyncio.Handle]] = {}
        self.steps = 0
        self.events: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def after_steps(self, steps: int, event: Callable[[], object]) -> None:
        """Do this when so many more callbacks have run."""
        heapq.heappush(self.events, (self.steps + steps, next(self._numbers), event))

    def _run_once(self) -> None:
        own: Any = self  # what follows is asyncio's own
        ready: Any = own._ready
        timers: Any = own._scheduled
        if not ready and not any(self._threads.values()):
            while timers and timers[0].cancelled():
                heapq.heappop(timers)._scheduled = False
            if not timers:
                raise DeadlockError("Everything waits in the simulation, and no timer is left that could end it.")
            self._now = max(self._now, timers[0].when())
        while timers and timers[0].when() <= self._now:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        while ready:
            handle = ready.popleft()
            thread = handle._context.get(THREAD, None)
            self._threads.setdefault(thread, deque()).append(handle)
        able = [thread for thread, handles in self._threads.items() if handles and _has_turns(thread)]
        if not able:
            for thread in [thread for thread in self._threads if thread is not None and thread[0].is_dead]:
                del self._threads[thread]
            if self._threads and not timers:
                raise DeadlockError("All processes of the simulation are stopped.")
            if timers:
                self._now = max(self._now, timers[0].when())
            return
        thread = able[self._dice.randrange(len(able))] if len(able) > 1 else able[0]
        handle = self._threads[thread].popleft()
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise DeadlockError("The simulation does not come to an end.")
        if not handle.cancelled():
            handle._run()
        while self.events and self.events[0][0] <= self.steps:
            heapq.heappop(self.events)[2]()


def _has_turns(thread: tuple[Mortal, str] | None) -> bool:
    return thread is None or thread[0].has_turns
