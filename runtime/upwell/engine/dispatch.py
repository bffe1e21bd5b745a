"""The ready queue of the loop, and the drivers that run coroutines from it: cheaper than a Task for each.

A *driver* is an asyncio Task that takes runs from the ready queue and steps each in a Context of the run's
own. A coroutine that ends without ever suspending has cost no Task. One that suspends keeps its driver to
itself until it ends, and the queue passes to another driver; so from inside, `asyncio.current_task()`,
`asyncio.timeout()`, task groups and cancel scopes find a Task that is the run's own.

Three rules keep this true:

1. A driver goes on to a next run only if nobody has kept its Task: its reference counts are what they were
   when it began, and nobody asked to cancel it. Else it retires, and the Task ends as the run's own would.
2. The number of live drivers starts small and doubles in each turn of the loop in which most of them stay
   suspended while runs are ready. Runs that sleep for long are all in flight after a few turns, and runs
   that suspend briefly never need more than a few hundred Tasks.
3. A driver gives the loop a turn after SLICE_SECONDS, however many runs are ready.
"""

from __future__ import annotations

import asyncio
import types
from _weakref import getweakrefcount
from collections import deque
from collections.abc import Callable, Generator, Sequence
from sys import getrefcount
from typing import Any, Final

from upwell.core.lifecycle import RETURNED, WAS_CANCELLED, Outcome
from upwell.core.states import RUNNING
from upwell.engine.attempt import outcome_of
from upwell.engine.clock import clock
from upwell.engine.future import RunFuture
from upwell.engine.settle import complete

SLICE_SECONDS: Final = 0.002
WINDOW: Final = 256
MOST_IDLE: Final = 256

Run = RunFuture[Any]
Settle = Callable[[Run, Outcome, float], None]
"""Ends or retries a run after an attempt, at this time."""


class Dispatcher:
    """Runs what is ready on one loop. All methods are called on that loop's thread."""

    def __init__(self, settle: Settle, refuse: Callable[[Run], None]) -> None:
        self._settle = settle
        self._refuse = refuse
        self._ready: deque[Run] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._drivers: set[asyncio.Task[None]] = set()
        self._suspended: dict[Run, asyncio.Task[None]] = {}
        self._window = WINDOW
        self._pulling = False  # a driver is on the stack: it will come back to the queue
        self._roused = False  # a driver is scheduled and will come to the queue
        self._ended = 0  # suspended runs that have ended since the window was last looked at
        self._looking = False  # a look at the window is scheduled

    def push(self, run: Run) -> None:
        """This run is ready."""
        self._ready.append(run)
        if not (self._pulling or self._roused):
            self._rouse()

    def extend(self, runs: Sequence[Run]) -> None:
        """These runs are ready."""
        self._ready.extend(runs)
        if not (self._pulling or self._roused):
            self._rouse()

    def interrupt(self, run: Run, reason: str) -> bool:
        """Cancel a run that is suspended; False if it is not, or is the caller itself."""
        task = self._suspended.get(run)
        if task is None:
            return False
        task.cancel(reason)
        return True

    async def close(self) -> None:
        """End all drivers; what is ready stays undone."""
        self._ready.clear()
        drivers = [driver for driver in self._drivers if driver is not asyncio.current_task()]
        for driver in drivers:
            driver.cancel("the runtime closes")
        if drivers:
            await asyncio.wait(drivers)

    # --- the drivers ----------------------------------------------------------------------------------

    def _rouse(self) -> None:
        """See to it that some driver comes to the queue, if the window allows."""
        idle = self._idle
        while idle:
            waiter = idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                self._roused = True
                return
        if len(self._drivers) < self._window:
            driver = asyncio.get_running_loop().create_task(self._drive())
            self._drivers.add(driver)
            driver.add_done_callback(self._drivers.discard)
            self._roused = True
        elif not self._looking:
            self._looking = True
            self._ended = 0
            asyncio.get_running_loop().call_soon(self._look_at_window)

    def _look_at_window(self) -> None:
        self._looking = False
        if not self._ready or self._roused:
            return
        if self._ended * 2 < self._window:
            self._window *= 2
        self._rouse()

    async def _drive(self) -> None:
        await self._pull()

    @types.coroutine
    def _pull(self) -> Generator[Any, None, None]:
        """What a driver does: take a run, step it, settle it; wait when there is none."""
        me = asyncio.current_task()
        assert me is not None
        ready, now_of = self._ready, clock().time
        kept = getrefcount(me)
        kept_weakly = getweakrefcount(me)
        self._roused, self._pulling = False, True
        now = now_of()
        slice_end = now + SLICE_SECONDS
        try:
            while True:
                if not ready or now >= slice_end:
                    if not (yield from self._pause()):
                        return
                    now = now_of()
                    slice_end = now + SLICE_SECONDS
                    count = getrefcount(me)
                    kept = min(kept, count)
                    continue
                run = ready.popleft()
                call = run.call
                if run.done:
                    continue
                if call.scope.stop_reason is not None:
                    self._refuse(run)
                    continue
                run.status = RUNNING
                run.run_count += 1
                run.started = now
                context = call.context.copy()
                attempt = call.attempt(run)
                try:
                    waits_on = context.run(attempt.send, None)
                except StopIteration as stop:
                    value = stop.value
                    now = now_of()
                    if call.plain and not me._must_cancel:  # type: ignore[attr-defined]  # as C code would ask
                        complete(run, value, now)
                    else:
                        self._settle(run, _returned(value, me), now)
                except BaseException as error:
                    now = now_of()
                    self._settle(run, outcome_of(error), now)
                    _reraise_interrupts(error)
                else:
                    outcome = yield from self._suspend(run, attempt, context, waits_on, me)
                    now = now_of()
                    slice_end = now + SLICE_SECONDS
                    if call.plain and outcome.kind is RETURNED:
                        complete(run, outcome.value, now)
                    else:
                        self._settle(run, outcome, now)
                        _reraise_interrupts(outcome.value)
                    del outcome
                del run, call, context, attempt
                value = waits_on = None
                if getrefcount(me) > kept or getweakrefcount(me) > kept_weakly or me.cancelling():
                    return  # somebody has kept this Task: it must not become another run's
        finally:
            self._pulling = False
            self._drivers.discard(me)
            if ready and not self._roused:
                self._rouse()

    def _pause(self) -> Generator[Any, None, bool]:
        """Give the loop a turn, or wait for work; False when this driver is not needed any more."""
        self._pulling = False
        try:
            if self._ready:
                self._roused = True
                yield None
            else:
                if len(self._idle) >= MOST_IDLE:
                    return False
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                yield from waiter
        except asyncio.CancelledError:
            self._roused = False
            return False
        self._roused, self._pulling = False, True
        return True

    def _suspend(
        self, run: Run, attempt: Any, context: Any, waits_on: Any, me: asyncio.Task[None]
    ) -> Generator[Any, None, Outcome]:
        """See a run that has suspended to the end of its attempt, while others take from the queue."""
        self._suspended[run] = me
        live = run.call.scope.live
        live.add(run)
        try:
            while True:
                self._pulling = False
                if self._ready and not self._roused:
                    self._rouse()
                try:
                    sent = yield waits_on
                except GeneratorExit:
                    context.run(attempt.close)
                    raise
                except BaseException as error:
                    self._pulling = True
                    waits_on = context.run(attempt.throw, error)
                else:
                    self._pulling = True
                    waits_on = context.run(attempt.send, sent)
        except StopIteration as stop:
            return _returned(stop.value, me)
        except GeneratorExit:
            raise
        except BaseException as error:
            return outcome_of(error)
        finally:
            self._ended += 1
            del self._suspended[run]
            live.discard(run)


def _returned(value: Any, me: asyncio.Task[None]) -> Outcome:
    """What a Task of its own would make of a coroutine that returned: cancelled, if a cancel was still due."""
    if me._must_cancel:  # type: ignore[attr-defined]  # as C code would ask
        return Outcome(WAS_CANCELLED, None, "Its own code cancelled it.")
    return Outcome(RETURNED, value)


def _reraise_interrupts(error: object) -> None:
    """Ctrl-C goes on its way through the loop, once the run that it hit is settled."""
    if isinstance(error, KeyboardInterrupt):
        raise error
