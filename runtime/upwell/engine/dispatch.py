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
import threading
from _weakref import getweakrefcount
from asyncio.tasks import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage]  # documented for Task implementations
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
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
TASK_NAME: Final = "upwell"
"""Of every driver's Task; one that has another has been renamed by a run."""

Run = RunFuture[Any]
_RUNNING: Final[str] = RUNNING.value
Settle = Callable[[Run, Outcome, float], None]
"""Ends or retries a run after an attempt, at this time."""


class Dispatcher:
    """Runs what is ready on one loop. All methods are called on that loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settle: Settle, refuse: Callable[[Run], None]) -> None:
        self.loop = loop
        self._settle = settle
        self._refuse = refuse
        self._ready: deque[Run] = deque()
        self._idle: list[_Driver] = []
        self._drivers: set[_Driver] = set()
        self._suspended: dict[Run, _Driver] = {}
        self._window = WINDOW
        self._pumping = False
        self._roused = False  # the pump is scheduled
        self._slice_end = 0.0
        self._ended = 0  # suspended runs that have ended since the window was last looked at
        self._looking = False  # a look at the window is scheduled
        self.context = Context()  # of all drivers: what they do in it is nothing
        self._served: list[_Driver] = []  # have served a run that suspended, and may have been kept
        self._sample: _Driver | None = None  # never serves: shows what a Task looks like that nobody has kept

    def push(self, run: Run) -> None:
        """This run is ready."""
        self._ready.append(run)
        if not (self._pumping or self._roused):
            self._rouse()

    def extend(self, runs: Sequence[Run]) -> None:
        """These runs are ready."""
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
        tasks = [driver.task for driver in self._drivers if driver.task is not asyncio.current_task()]
        for task in tasks:
            task.cancel("the runtime closes")
        if tasks:
            await asyncio.wait(tasks)

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
        if self._ready:
            self._slice_end = clock().time() + SLICE_SECONDS
            self._work(None)

    def _work(self, wanted: Run | None) -> None:
        """Make the first step of ready runs until the slice is over, the window is full, or `wanted` has ended."""
        ready, now_of, loop = self._ready, clock().time, self.loop
        suspended, window, slice_end = self._suspended, self._window, self._slice_end
        now = now_of()
        self._pumping = True
        driver, task, kept, kept_weakly = self._enter_next()
        try:
            while ready and now < slice_end and len(suspended) < window:
                run = ready.popleft()
                if run.done:
                    continue
                call = run.call
                if call.scope.stop_reason is not None:
                    self._refuse(run)
                    continue
                run.status = _RUNNING
                run.run_count += 1
                run.started = now
                context: Context = call.context.copy()
                attempt = call.attempt(run)
                try:
                    waits_on = context.run(attempt.send, None)
                except StopIteration as stop:
                    now = now_of()
                    if call.plain and not task._must_cancel:  # type: ignore[attr-defined]  # as asyncio itself asks
                        complete(run, stop.value, now)
                    else:
                        self._settle(run, driver.returned(stop.value), now)
                except BaseException as error:
                    now = now_of()
                    self._settle(run, outcome_of(error), now)
                    _reraise_interrupts(error)
                else:
                    now = now_of()
                    driver.adopt(run, attempt, context, waits_on)
                    driver.is_kept = True  # by itself: the next run gets another
                attempt = context = waits_on = None  # type: ignore[assignment]  # they may keep the Task
                if (
                    driver.is_kept
                    or getrefcount(task) > kept
                    or getweakrefcount(task) > kept_weakly
                    or task.cancelling()
                    or task._callbacks
                    or task.get_name() is not TASK_NAME
                ):
                    _leave_task(loop, task)
                    driver.retire()
                    driver, task, kept, kept_weakly = self._enter_next()
                if run is wanted and run.done:
                    break
        finally:
            self._pumping = False
            _leave_task(loop, task)
            driver.give_back()
            if ready and not self._roused:
                self._rouse()

    def _enter_next(self) -> tuple[_Driver, asyncio.Task[None], int, int]:
        """Make steps in the name of another driver from now on; with the references to its Task as they are now."""
        driver = self._take_driver()
        task = driver.task
        _enter_task(self.loop, task)
        kept, kept_weakly = getrefcount(task), getweakrefcount(task)  # before the tuple below adds a reference
        return driver, task, kept, kept_weakly

    # --- drivers --------------------------------------------------------------------------------------

    def _take_driver(self) -> _Driver:
        """An idle driver that nobody has kept, or a new one; it is borrowed until given back or retired."""
        while self._idle:
            driver = self._idle.pop()
            if self.is_clean(driver):
                driver.borrow()
                return driver
            driver.retire()
        if self._sample is None:
            self._sample = self._new_driver()
            self._sample.give_back()
            self._idle.clear()
        return self._new_driver()

    def _new_driver(self) -> _Driver:
        driver = _Driver(self)
        self._drivers.add(driver)
        return driver

    def is_clean(self, driver: _Driver) -> bool:
        """Whether an idle driver's Task is as if it had never served: nobody keeps it, or has touched it."""
        task, sample = driver.task, self._sample
        if driver.is_woken or not driver.used:
            return not driver.is_woken
        return (
            sample is not None
            and sample.is_parked
            and getrefcount(task) <= getrefcount(sample.task) + 1  # the local name here
            and getweakrefcount(task) <= getweakrefcount(sample.task)
            and not task.cancelling()
            and not task._callbacks
            and task.get_name() is TASK_NAME
        )

    def put_idle(self, driver: _Driver) -> bool:
        """Keep an idle driver for later; False if there are enough."""
        if driver is self._sample:
            return True
        if len(self._idle) >= MOST_IDLE:
            return False
        self._idle.append(driver)
        return True

    def has_served(self, driver: _Driver) -> None:
        """A driver's run has ended: soon, outside of its own step, see whether somebody has kept its Task."""
        self._served.append(driver)
        if len(self._served) == 1:
            self.loop.call_soon(self._look_at_served)

    def _look_at_served(self) -> None:
        served, self._served = self._served, []
        for driver in served:
            if not self.is_clean(driver) or not self.put_idle(driver):
                driver.retire()

    def forget(self, driver: _Driver) -> None:
        """A driver's Task ends."""
        self._drivers.discard(driver)

    def has_suspended(self, run: Run, driver: _Driver) -> None:
        self._suspended[run] = driver
        run.call.scope.live.add(run)

    def has_ended(self, run: Run, outcome: Outcome) -> None:
        """A run that had suspended has ended its attempt so."""
        self._ended += 1
        del self._suspended[run]
        run.call.scope.live.discard(run)
        now = clock().time()
        if run.call.plain and outcome.kind is RETURNED:
            complete(run, outcome.value, now)
        else:
            self._settle(run, outcome, now)
        if self._ready and not (self._roused or self._pumping):
            self._rouse()


class _Driver(Coroutine[Any, Any, None]):
    """The coroutine of a Task that lends its name to runs, and sees those that suspend to their end.

    It waits for work as a future would be waited for, with itself in the place of the future: so the pump can
    let it wait for what an adopted run waits for, at the cost of one callback.
    """

    __slots__ = (
        "__weakref__",
        "_asyncio_future_blocking",
        "_attempt",
        "_begun",
        "_borrowed",
        "_context",
        "_dispatcher",
        "_loop",
        "_retired",
        "_run",
        "_waits_on",
        "_wakeup",
        "_wakeup_context",
        "is_kept",
        "is_woken",
        "task",
        "used",
    )

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._loop = dispatcher.loop
        self._asyncio_future_blocking = False
        self._begun = False  # the Task has made its first step
        self._borrowed = True  # the pump makes a step in the Task's name
        self.used = False
        self._retired = False
        self.is_kept = False  # by a run that it has adopted
        self.is_woken = False  # its Task is scheduled, to end
        self._run: Run | None = None
        self._attempt: Any = None
        self._context: Any = None
        self._waits_on: Any = None
        self._wakeup: Any = None
        self._wakeup_context: Any = None
        self.task: asyncio.Task[None] = asyncio.Task(self, loop=self._loop, name=TASK_NAME, context=dispatcher.context)

    # --- what the pump does with it ---------------------------------------------------------------------

    def borrow(self) -> None:
        """The pump makes steps in its Task's name from now on."""
        self._borrowed = True

    @property
    def is_parked(self) -> bool:
        """Whether its Task waits for work."""
        return self._wakeup is not None

    def give_back(self) -> None:
        """The pump is done with it."""
        self._borrowed = False
        if self._begun and not self._dispatcher.put_idle(self):
            self.retire()

    def retire(self) -> None:
        """Let the Task end, unless it has adopted a run."""
        self._borrowed = False
        if self._run is None and not self._retired:
            self._retired = True
            if self._begun:
                self._wake()

    def _wake(self) -> None:
        if not self.is_woken:
            self.is_woken = True
            self._loop.call_soon(self._wakeup, self, context=self._wakeup_context)

    def returned(self, value: Any) -> Outcome:
        """What a Task of its own would make of a coroutine that returned: cancelled, if a cancel was still due."""
        if self.task._must_cancel:  # type: ignore[attr-defined]  # as asyncio's own code asks
            return Outcome(WAS_CANCELLED, None, "Its own code cancelled it.")
        return Outcome(RETURNED, value)

    def adopt(self, run: Run, attempt: Any, context: Context, waits_on: Any) -> None:
        """Take over a run whose first step was made in this driver's name, and which has suspended."""
        self._run, self._attempt, self._context = run, attempt, context
        self.used, self._borrowed = True, False
        self._dispatcher.has_suspended(run, self)
        reason = run.call.scope.stop_reason
        if reason is not None:
            self.task.cancel(reason)
        self._waits_on = waits_on
        if not self._begun:
            return  # the Task's first step, which is due, will wait for it
        if waits_on is None:
            self._loop.call_soon(self._wakeup, self, context=self._wakeup_context)
            return
        if self._can_wait_for(waits_on):
            waits_on._asyncio_future_blocking = False
            waits_on.add_done_callback(self._wakeup, context=self._wakeup_context)
            if self.task._must_cancel:  # type: ignore[attr-defined]
                waits_on.cancel(msg=self.task._cancel_message)  # type: ignore[attr-defined]
        else:  # something that no Task can wait for: let the Task say so
            self._begun = False
            self._loop.call_soon(self._wakeup, self, context=self._wakeup_context)

    def _can_wait_for(self, waits_on: Any) -> bool:
        """Whether it is a future, of this loop, that is about to be waited for."""
        return (
            getattr(waits_on, "_asyncio_future_blocking", None) is True
            and waits_on is not self.task
            and waits_on.get_loop() is self._loop
        )

    # --- what the Task does with it (a coroutine) ---------------------------------------------------------

    def send(self, value: Any) -> Any:
        """One step of the Task."""
        if not self._begun:
            self._begun = True
            return self._first_step()
        if self._run is None:
            return self._park()
        return self._step(self._attempt.send, value)

    def throw(self, error: Any, *_: Any) -> Any:
        """One step of the Task, with an exception of what it waited for, or a cancellation."""
        begun, self._begun = self._begun, True
        if self._run is None:
            self._dispatcher.forget(self)
            raise error
        waits_on, self._waits_on = self._waits_on, None
        if not begun and self._can_wait_for(waits_on) and waits_on.cancel(msg=self.task._cancel_message):  # type: ignore[attr-defined]
            return waits_on  # cancelled before its own first step: what the run waits for is, as asyncio does it
        return self._step(self._attempt.throw, error)

    def close(self) -> None:
        """The Task is destroyed; so is what it has adopted."""
        if self._attempt is not None:
            self._context.run(self._attempt.close)
        self._dispatcher.forget(self)

    def __await__(self) -> Any:
        raise RuntimeError("A driver is the coroutine of its own Task only.")

    def _first_step(self) -> Any:
        """Wait for what the run adopted meanwhile waits for, or for work."""
        if self._run is None:
            if not self._borrowed and not self._retired and not self._dispatcher.put_idle(self):
                self._retired = True
            return self._park()
        waits_on, self._waits_on = self._waits_on, None
        return waits_on

    def _step(self, advance: Callable[[Any], Any], argument: Any) -> Any:
        self._waits_on = None
        try:
            return self._context.run(advance, argument)
        except StopIteration as stop:
            outcome = self.returned(stop.value)
        except BaseException as error:
            outcome = outcome_of(error)
        run = self._run
        assert run is not None
        self._run = self._attempt = self._context = None
        self._dispatcher.has_ended(run, outcome)
        _reraise_interrupts(outcome.value)
        self.is_kept = False
        if self.task.cancelling():
            self._retired = True
        else:
            self._dispatcher.has_served(self)
        return self._park()

    def _park(self) -> Any:
        """Wait for work, in the place of a future; or end."""
        if self._retired:
            self._dispatcher.forget(self)
            raise StopIteration
        self._asyncio_future_blocking = True
        return self

    # --- what a Task does with a future that it waits for ---------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wakeup: Any, *, context: Context) -> None:
        self._wakeup, self._wakeup_context = wakeup, context

    def result(self) -> None:
        """The wait has ended well."""

    def cancel(self, msg: object = None) -> bool:
        """Somebody cancels the Task while it waits: cancel what the adopted run waits for, or end."""
        if self._waits_on is not None:
            return bool(self._waits_on.cancel(msg))
        if not self._borrowed and self._run is None:
            self._wake()
        return False


def _reraise_interrupts(error: object) -> None:
    """Ctrl-C goes on its way through the loop, once the run that it hit is settled."""
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error
