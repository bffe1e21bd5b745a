"""A driver: an asyncio Task that lends its name to runs, and sees those that suspend to their end.

See `dispatch.py` for who uses it, and for the rules that make it safe.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from upwell.core.lifecycle import CANCELLED_UNSAID, RETURNED, WAS_CANCELLED, Outcome
from upwell.engine.attempt import outcome_of
from upwell.engine.future import RunFuture

if TYPE_CHECKING:
    from upwell.engine.dispatch import Dispatcher

TASK_NAME: Final = "upwell"
"""Of every driver's Task; one that has another has been renamed by a run."""

Run = RunFuture[Any]


class Driver(Coroutine[Any, Any, None]):
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

    def rest(self) -> bool:
        """The pump is done with it for now; whether it may go on with it without looking for another."""
        self._borrowed = False
        return self._begun and not self._retired and self._run is None

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
            return Outcome(WAS_CANCELLED, None, CANCELLED_UNSAID)
        return Outcome(RETURNED, value)

    def adopt(self, run: Run, attempt: Any, context: Context, waits_on: Any) -> None:
        """Take over a run whose first step was made in this driver's name, and which has suspended."""
        self._run, self._attempt, self._context = run, attempt, context
        self.used, self._borrowed = True, False
        self.is_kept = True  # by itself: the pump goes on with another
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
        outcome, value = None, None
        try:
            return self._context.run(advance, argument)
        except StopIteration as stop:
            value = stop.value
            if self.task._must_cancel:  # type: ignore[attr-defined]
                outcome = self.returned(value)
        except BaseException as error:
            outcome = outcome_of(error)
        run = self._run
        assert run is not None
        self._run = self._attempt = self._context = None
        self._dispatcher.has_ended(run, outcome, value)
        if outcome is not None:
            reraise_interrupts(outcome.value)
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
        if self._waits_on is not None and self._begun:  # else it is nothing that can be waited for, or cancelled
            return bool(self._waits_on.cancel(msg))
        if not self._borrowed and self._run is None:
            self._wake()
        return False


def reraise_interrupts(error: object) -> None:
    """Ctrl-C goes on its way through the loop, once the run that it hit is settled."""
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error
