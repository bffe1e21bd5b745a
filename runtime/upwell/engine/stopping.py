"""Which flow runs this process has under way, and how one of them is made to end by somebody who is not its caller.

A run on a loop has its Task cancelled. A sync run on the main thread is interrupted by a signal, as by Ctrl-C, which
even cuts `time.sleep` short; on another thread an exception is raised at its next bytecode. What the run has started is
cancelled with it. Its caller gets a CancelledRun, for nobody has cancelled the caller.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from upwell.core.states import CANCELLING
from upwell.engine.interrupts import Stopped, clear_raise_in_thread, interrupt_main_thread, raise_in_thread

if TYPE_CHECKING:
    from upwell.engine.flow_run import FlowRun


class UnderWay:
    """A flow run in the thread or Task that carries it out.

    is_told: its end has been asked for there.
    is_away: it is a generator whose caller is busy with an item. Nobody interrupts that: it is told at its next step.
    """

    __slots__ = ("_take_back", "is_away", "is_told", "run", "task", "thread_id")

    def __init__(self, run: FlowRun) -> None:
        self.run = run
        self.is_away = run.definition.kind.is_generator
        self.is_told = False
        self._take_back: Callable[[], object] | None = None
        self._note_where()
        UNDER_WAY.add(self)

    def _note_where(self) -> None:
        self.thread_id = threading.get_ident()
        self.task: asyncio.Task[Any] | None = asyncio.current_task() if self.run.definition.kind.is_async else None

    @contextmanager
    def at_work(self) -> Generator[Stopped | None]:
        """Around a step of a generator; gives what is to be thrown into it, if its end was asked for meanwhile."""
        with _telling:
            self.is_away = False
            self._note_where()
            is_asked = self.run.stop_reason is not None and not self.is_told
            self.is_told = self.is_told or is_asked
        try:
            yield Stopped(self.run.stop_reason) if is_asked else None
        except Stopped:
            self._take_back = None  # it has arrived
            raise
        finally:
            with _telling:
                self.is_away = True
                if self._take_back is not None and self.task is None:
                    self._take_back()
                    self._take_back, self.is_told = None, False  # at the next step, then

    def ended(self) -> None:
        """Nothing of it is left to be stopped."""
        UNDER_WAY.discard(self)
        if self.run.stop_reason is None:
            return
        with _telling:  # nobody tells it from here on
            if self._take_back is not None:
                self._take_back()

    def pass_on(self, interruptions: list[BaseException]) -> None:
        """Raise the first of what has interrupted the run that its caller is to get: not what came from here alone."""
        for interruption in interruptions:
            if not self._is_why(interruption):
                raise interruption

    def _is_why(self, interruption: BaseException) -> bool:
        if not self.is_told:
            return False
        if isinstance(interruption, asyncio.CancelledError):
            return self.task is not None and not self.task.cancelling()
        return isinstance(interruption, Stopped)

    def stop(self, reason: str) -> None:
        """Ask for its end, once; from any thread."""
        with _telling:
            if self.is_told or not self._can_be_stopped():
                return
            self.run.stop_reason = reason
            if self.is_away:
                self._stop_started(reason)
                return
            if self.task is not None:
                with suppress(RuntimeError):  # its loop has ended
                    self.task.get_loop().call_soon_threadsafe(self._cancel, self.task)
                return
            self.is_told = True
            if self.thread_id == threading.main_thread().ident and interrupt_main_thread(self._interruption):
                return
            raise_in_thread(self.thread_id, Stopped)
            if self.thread_id != threading.main_thread().ident:
                self._take_back = partial(clear_raise_in_thread, self.thread_id)
            self._stop_started(reason)  # its thread may be waiting for that

    def _stop_started(self, reason: str) -> None:
        scope = self.run.scope
        scope.perform(lambda: scope.stop(reason))

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if not self.is_told and not self.is_away and self._can_be_stopped():
            self.is_told = True
            self._take_back = task.uncancel
            task.cancel(self.run.stop_reason)

    def _interruption(self) -> Stopped | None:
        """What to raise in the main thread; nothing, if the run, or this step of it, has come to its end meanwhile."""
        if self.is_away:
            self.is_told = False
            return None
        return Stopped(self.run.stop_reason) if self._can_be_stopped() else None

    def _can_be_stopped(self) -> bool:
        run = self.run
        return self in UNDER_WAY and not (run.states and run.state.is_final())


UNDER_WAY: Final[set[UnderWay]] = set()
"""Those of this process, subflow runs too."""

_telling = threading.Lock()


def ids_under_way() -> list[str]:
    """The flow runs of this process that have not ended; from any thread."""
    return [str(found.run.id) for found in UNDER_WAY.copy()]


def stop_flow_run(flow_run_id: str, reason: str) -> bool:
    """Ask for the end of a flow run of this process, gently; whether it is here. From any thread."""
    found = [one for one in UNDER_WAY.copy() if str(one.run.id) == flow_run_id]
    for one in found:
        one.stop(reason)
    return bool(found)


def ends_in_thread(thread_id: int) -> bool:
    """Whether a flow run in this thread has been interrupted, and waits until what it has started has ended, too."""
    here = [one.run for one in UNDER_WAY.copy() if one.task is None and one.thread_id == thread_id]
    return any(run.states and run.state.type is CANCELLING for run in here)


def stop_durable_flow_runs(reason: str) -> None:
    """Ask for the end of all durable flow runs of this process, gently; their subflow runs end with them."""
    for one in UNDER_WAY.copy():
        around = one.run.scope.parent
        if one.run.durable and (around is None or around.durable is None):
            one.stop(reason)
