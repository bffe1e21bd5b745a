"""The ready queue of the loop, and the pump that steps coroutines from it: cheaper than a Task for each.

The *pump* is a plain callback of the loop. It takes runs from the ready queue and makes the first step of
each, in a Context of the run's own, on behalf of a *driver*: an asyncio Task that has nothing to do. A
coroutine that ends without ever suspending has cost no Task at all. One that suspends is adopted by the
driver in whose name it ran, which is its Task until it ends, and the pump goes on with another driver. So
from inside, `asyncio.current_task()`, `asyncio.timeout()`, task groups and cancel scopes find a Task that is
the run's own. (That a step may be made in the name of a Task is asyncio's `_enter_task`, part of its
documented support for Task implementations.)

Three rules keep this true:

1. A driver serves a next run only if nobody has kept its Task: its reference counts are what they were
   before, and nobody asked to cancel it. Else it retires, and its Task ends as the run's own would have.
2. The number of runs in flight starts with a small window, which doubles in each turn of the loop in which
   most of them stay suspended while others are ready. Runs that sleep for long are all in flight after a few
   turns, and runs that suspend briefly never need more than a few hundred Tasks.
3. The loop gets a turn after SLICE_SECONDS, however many runs are ready. A coroutine that awaits a run may
   work the pump itself, instead of suspending, within the same slice.
"""

from __future__ import annotations

import asyncio
from _weakref import getweakrefcount
from asyncio.tasks import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage]  # documented for Task implementations
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from itertools import repeat
from sys import getrefcount, maxsize
from typing import Any, Final

from upwell.core.lifecycle import RETURNED, Outcome
from upwell.core.states import RUNNING
from upwell.engine.attempt import outcome_of
from upwell.engine.clock import clock
from upwell.engine.driver import TASK_NAME, Driver, reraise_interrupts
from upwell.engine.future import RunFuture
from upwell.engine.loop_lot import ALONE, LoopLot
from upwell.engine.lot import PART
from upwell.engine.recorder import FULL_SECONDS
from upwell.engine.settle import complete, complete_columns, keep_quickly

SLICE_SECONDS: Final = 0.002
SHARED_SLICE_SECONDS: Final = 0.001
"""While the journal is behind: its thread needs a turn after each."""

WINDOW: Final = 256
MOST_IDLE: Final = 256

Run = RunFuture[Any]
_RUNNING: Final[str] = RUNNING.value
_NO_KEYS: Final = repeat(None)
Settle = Callable[[Run, Outcome, float], None]
"""Ends or retries a run after an attempt, at this time."""


class Dispatcher:
    """Runs what is ready on one loop. All methods are called on that loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settle: Settle, refuse: Callable[[Run], None]) -> None:
        self.loop = loop
        self._settle = settle
        self._refuse = refuse
        self._ready: deque[Any] = deque()  # runs, and lots of such
        self._idle: list[Driver] = []
        self._at_hand: tuple[Driver, asyncio.Task[None], int, int] | None = None  # the last one, and what it was like
        self._drivers: set[Driver] = set()
        self._suspended: dict[Run, Driver] = {}
        self._window = WINDOW
        self._pumping = False
        self._roused = False  # the pump is scheduled
        self._slice_end = 0.0
        self._ended = 0  # suspended runs that have ended since the window was last looked at
        self._looking = False  # a look at the window is scheduled
        self.context = Context()  # of all drivers: what they do in it is nothing
        self._served: list[Driver] = []  # have served a run that suspended, and may have been kept
        self._sample: Driver | None = None  # never serves: shows what a Task looks like that nobody has kept
        self._references = self._weak_references = maxsize  # the fewest that were seen to it

    def push(self, run: Run) -> None:
        """This run is ready."""
        self._ready.append(run)
        if not (self._pumping or self._roused):
            self._rouse()

    def extend(self, runs: Sequence[Run]) -> None:
        """These runs are ready."""
        if isinstance(runs, LoopLot):
            self._ready.append(runs)
        else:
            self._ready.extend(runs)
        if not (self._pumping or self._roused):
            self._rouse()

    def help(self, run: Run) -> None:
        """Work the pump in the name of somebody who awaits this run, for as long as the slice lasts."""
        if self._ready and not self._pumping and self._slice_end > clock().time():
            waiting = asyncio.current_task(self.loop)
            if waiting is None:
                return
            _leave_task(self.loop, waiting)
            try:
                self._work(run)
            finally:
                _enter_task(self.loop, waiting)

    def interrupt(self, run: Run, reason: str) -> bool:
        """Cancel a run that is suspended; False if it is not."""
        driver = self._suspended.get(run)
        if driver is None:
            return False
        driver.task.cancel(reason)
        return True

    async def close(self) -> None:
        """End all drivers; what is ready stays undone."""
        self._ready.clear()
        self._at_hand = None
        tasks = [driver.task for driver in self._drivers if driver.task is not asyncio.current_task()]
        for task in tasks:
            task.cancel("the runtime closes")
        if tasks:
            await asyncio.wait(tasks)
        self._sample = None
        self._idle.clear()  # their Tasks know an exception that passed by, and so all that its frames hold
        self._served.clear()

    # --- the pump -------------------------------------------------------------------------------------

    def _rouse(self) -> None:
        """Have the pump run in the next turn, if the window allows."""
        if len(self._suspended) < self._window:
            self._roused = True
            self.loop.call_soon(self._pump)
        elif not self._looking:
            self._looking = True
            self._ended = 0
            self.loop.call_soon(self._look_at_window)

    def _look_at_window(self) -> None:
        self._looking = False
        if not self._ready or self._roused:
            return
        if self._ended * 2 < self._window:
            self._window *= 2
        self._rouse()

    def _pump(self) -> None:
        self._roused = False
        if not self._ready:
            return
        recorder = self._ready[0].call.scope.recorder
        if recorder is not None:
            recorder.wake()
            recorder.give_way()
        if recorder is not None and recorder.is_full():
            self._roused = True
            self.loop.call_later(FULL_SECONDS, self._pump)
        else:
            is_shared = recorder is not None and recorder.is_behind
            self._slice_end = clock().time() + (SHARED_SLICE_SECONDS if is_shared else SLICE_SECONDS)
            self._work(None)

    def _work(self, wanted: Run | None) -> None:
        """Make the first step of ready runs until the slice is over, the window is full, or `wanted` has ended."""
        ready = self._ready
        self._pumping = True
        try:
            while ready and self._has_room():
                lot = ready[0]
                if type(lot) is not LoopLot:
                    self._step_runs(wanted)
                elif lot.next == len(lot):
                    ready.popleft()
                elif lot.is_left_to_objects or lot.call.scope.stop_reason is not None:
                    ready.popleft()
                    ready.extendleft(reversed(lot.rest()))
                else:
                    self._step_lot(lot)
                if wanted is not None and wanted.done:
                    break
        finally:
            self._pumping = False
            if ready and not self._roused:
                self._rouse()

    def _has_room(self) -> bool:
        """Whether the slice is not over, and the window not full."""
        return clock().time() < self._slice_end and len(self._suspended) < self._window

    def _step_runs(self, wanted: Run | None) -> None:
        """Make the first step of runs up to the next lot."""
        ready, now_of, loop = self._ready, clock().time, self.loop
        suspended, window, slice_end = self._suspended, self._window, self._slice_end
        now = now_of()
        driver, task, kept, kept_weakly = self._enter_next()
        try:
            while ready and now < slice_end and len(suspended) < window:
                run = ready.popleft()
                if run.done:
                    if type(run) is LoopLot:
                        ready.appendleft(run)
                        break
                    continue
                call = run.call
                if call.scope.stop_reason is not None:
                    self._refuse(run)
                    continue
                run.status = _RUNNING
                run.run_count += 1
                run.started = now
                context: Context = call.context if call.owns_context else call.context.copy()
                attempt = call.attempt(run)
                try:
                    waits_on = context.run(attempt.send, None)
                except StopIteration as stop:
                    now = now_of()
                    is_cancelled = task._must_cancel  # type: ignore[attr-defined]  # as asyncio itself asks
                    if not is_cancelled and (call.plain or (call.is_simple and keep_quickly(run, stop.value))):
                        complete(run, stop.value, now)
                    else:
                        self._settle(run, driver.returned(stop.value), now)
                except BaseException as error:
                    now = now_of()
                    self._settle(run, outcome_of(error), now)
                    reraise_interrupts(error)
                else:
                    now = now_of()
                    driver.adopt(run, attempt, context, waits_on)
                attempt = context = waits_on = None  # type: ignore[assignment]  # they may keep the Task
                if driver.is_kept or _is_known(task, kept, kept_weakly):
                    _leave_task(loop, task)
                    driver.retire()
                    driver, task, kept, kept_weakly = self._enter_next()
                if run.done and run is wanted:
                    break
        finally:
            self._leave(driver, task, kept, kept_weakly)

    def _step_lot(self, lot: LoopLot) -> None:
        """Make the first step of a part of a lot's runs, which are columns after that where they can be."""
        call, first, items, values, began, ended = lot.call, lot.first, lot.items, lot.values, lot.started, lot.ended
        now_of, slice_end, scope = clock().time, self._slice_end, call.scope
        new_context, new_attempt = call.context.copy, call.attempt
        start, end = lot.next, min(lot.next + PART, len(lot))
        keys, put = (_NO_KEYS, None) if lot.kept is None else (lot.kept.keys[start:end], lot.kept.put)
        objects = list[int]()  # places of those that stay so
        now = now_of()
        driver, task, kept, kept_weakly = self._enter_next()
        try:
            for place, key in zip(range(start, end), keys, strict=False):
                lot.next = place + 1
                run: Run
                lot.stepped = run = RunFuture(
                    call, first + place, items[place], _RUNNING, False, now, 0.0, None, key, False, 1
                )
                if lot.is_looked_into and not lot.is_new(run):  # there is an object, which is ready instead
                    objects.append(place)
                    self._ready.appendleft(lot[place])
                    break
                context, attempt = new_context(), new_attempt(run)
                try:
                    waits_on = context.run(attempt.send, None)
                except StopIteration as stop:
                    attempt = context = None  # they know the run
                    before, now = now, now_of()
                    fits = put is None or put(place, stop.value)
                    if fits:
                        values[place], began[place], ended[place] = stop.value, before, now
                    is_cancelled = task._must_cancel  # type: ignore[attr-defined]  # as above
                    if (not fits or is_cancelled or getrefcount(run) > ALONE) and lot.stays(run):
                        objects.append(place)
                        self._settle(run, driver.returned(stop.value), now)
                except BaseException as error:
                    now = now_of()
                    lot.stays(run)
                    objects.append(place)
                    self._settle(run, outcome_of(error), now)
                    reraise_interrupts(error)
                else:
                    now = now_of()
                    lot.stays(run)
                    objects.append(place)
                    driver.adopt(run, attempt, context, waits_on)
                attempt = context = waits_on = None
                if driver.is_kept or _is_known(task, kept, kept_weakly):
                    _leave_task(self.loop, task)
                    driver.retire()
                    driver, task, kept, kept_weakly = self._enter_next()
                if now >= slice_end or scope.stop_reason is not None or (objects and not self._has_room()):
                    break
        finally:
            self._leave(driver, task, kept, kept_weakly)
            lot.have_ended(start, objects)
            complete_columns(lot, start, lot.next, objects)
            lot.tell()

    def _enter_next(self) -> tuple[Driver, asyncio.Task[None], int, int]:
        """Make steps in the name of a driver from now on; with the references to its Task as nobody keeps it."""
        at_hand, self._at_hand = self._at_hand, None
        if at_hand is not None and not at_hand[0].is_woken:
            at_hand[0].borrow()
            _enter_task(self.loop, at_hand[1])
            return at_hand
        driver = self._take_driver()
        task = driver.task
        _enter_task(self.loop, task)
        kept, kept_weakly = getrefcount(task), getweakrefcount(task)  # before the tuple below adds a reference
        return driver, task, kept, kept_weakly

    def _leave(self, driver: Driver, task: asyncio.Task[None], kept: int, kept_weakly: int) -> None:
        """Make no more steps in the name of a driver for now."""
        _leave_task(self.loop, task)
        if driver.rest():  # whoever awaits runs one by one works the pump for each: no search for a driver then
            self._at_hand = driver, task, kept, kept_weakly
        else:
            driver.give_back()

    # --- drivers --------------------------------------------------------------------------------------

    def _take_driver(self) -> Driver:
        """An idle driver that nobody has kept, or a new one; it is borrowed until given back or retired."""
        while self._idle:
            driver = self._idle.pop()
            if self._is_still_clean(driver):
                driver.borrow()
                return driver
            driver.retire()
        if self._sample is None:
            self._sample = self._new_driver()
            self._sample.give_back()
            self._idle.clear()
        return self._new_driver()

    def _new_driver(self) -> Driver:
        driver = Driver(self)
        self._drivers.add(driver)
        return driver

    def is_clean(self, driver: Driver) -> bool:
        """Whether an idle driver's Task is as if it had never served: nobody keeps it, or has touched it."""
        task = driver.task
        if driver.is_woken or not driver.used:
            return not driver.is_woken
        return (
            self._look_at_sample()
            and getrefcount(task) <= self._references + 1  # the local name here
            and getweakrefcount(task) <= self._weak_references
            and not task.cancelling()
            and not task._callbacks
            and not task._asyncio_future_blocking  # as it stays in a Task that has awaited itself
            and task.get_name() is TASK_NAME
        )

    def _look_at_sample(self) -> bool:
        """Whether it is known what a Task looks like that nobody keeps. Who keeps all tasks keeps the sample, too."""
        sample = self._sample
        if sample is None or not sample.is_parked:
            return False
        self._references = min(self._references, getrefcount(sample.task))
        self._weak_references = min(self._weak_references, getweakrefcount(sample.task))
        return True

    def _is_still_clean(self, driver: Driver) -> bool:
        """Whether nobody has taken hold of a driver since it became idle, through all tasks."""
        return not driver.is_woken and getrefcount(driver.task) <= self._references

    def put_idle(self, driver: Driver) -> bool:
        """Keep an idle driver for later; False if there are enough."""
        if driver is self._sample:
            return True
        if len(self._idle) >= MOST_IDLE:
            return False
        self._idle.append(driver)
        return True

    def has_served(self, driver: Driver) -> None:
        """A driver's run has ended: soon, outside of its own step, see whether somebody has kept its Task."""
        self._served.append(driver)
        if len(self._served) == 1:
            self.loop.call_soon(self._look_at_served)

    def _look_at_served(self) -> None:
        served, self._served = self._served, []
        for driver in served:
            if not self.is_clean(driver) or not self.put_idle(driver):
                driver.retire()

    def forget(self, driver: Driver) -> None:
        """A driver's Task ends."""
        self._drivers.discard(driver)

    def has_suspended(self, run: Run, driver: Driver) -> None:
        self._suspended[run] = driver
        scope = run.call.scope
        scope.live.add(run)
        if scope.recorder is not None:
            scope.recorder.begun.append(run)

    def has_ended(self, run: Run, outcome: Outcome | None, value: Any) -> None:
        """A run that had suspended has ended its attempt: so, or it has returned this value."""
        self._ended += 1
        del self._suspended[run]
        scope = run.call.scope
        scope.live.discard(run)
        if scope.recorder is not None:
            scope.recorder.wake()
        now = clock().time()
        if outcome is not None:
            self._settle(run, outcome, now)
        elif run.call.plain:
            complete(run, value, now)
        else:
            self._settle(run, Outcome(RETURNED, value), now)
        if self._ready and not (self._roused or self._pumping):
            self._rouse()


def _is_known(task: asyncio.Task[None], kept: int, kept_weakly: int) -> bool:
    """Whether somebody has kept this Task, or touched it, since the references to it were counted."""
    return bool(
        getrefcount(task) > kept + 1  # the one to it here
        or getweakrefcount(task) > kept_weakly
        or task.cancelling()
        or task._callbacks
        or task.get_name() is not TASK_NAME
    )
