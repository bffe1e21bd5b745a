"""The steps that the life of an inline run is made of, each of which can be carried out in two ways.

A life (see `inline` and `flow_run`) is a generator: it yields a step, and gets its answer back. It says what
happens and in which order, once; whether the thread is blocked or the loop awaited meanwhile is up to the
two drivers at the end of this module. So there is one engine for sync and async code.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Protocol, TypeVar

from upwell.core.errors import BlockingWaitError, RuntimeClosedError
from upwell.engine.attempt import call_hook
from upwell.engine.clock import ERRANDS, Gate, clock
from upwell.engine.finish import until_done
from upwell.engine.future import TaskFuture
from upwell.engine.interrupts import may_be_interrupted, uninterrupted
from upwell.engine.limits import NamedLimit, Ticket
from upwell.engine.recorder import Recorder
from upwell.engine.scope import Scope

T = TypeVar("T")


class Step(Protocol):
    """Something that takes time."""

    def block(self) -> Any:
        """Carry it out in this thread."""

    async def wait(self) -> Any:
        """Carry it out on the running loop."""


Life = Generator[Step, Any, T]


class Sleep:
    """Let time pass."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def block(self) -> None:
        clock().sleep(self._seconds)

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds)


class CallUser:
    """Call a function of the user's, such as a hook; it may be sync or async."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._fn = fn
        self._args = args

    def block(self) -> Any:
        answer = self._fn(*self._args)
        if not inspect.isawaitable(answer):
            return answer

        async def finish() -> Any:
            return await answer

        return run_apart(finish())

    async def wait(self) -> Any:
        return await call_hook(self._fn, *self._args)


class AllEnded:
    """Wait until these runs have ended, well or badly."""

    def __init__(self, futures: Sequence[TaskFuture[Any]]) -> None:
        self._futures = futures

    def block(self) -> None:
        for future in self._futures:
            future.wait()

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        for future in self._futures:
            if not future.is_done():
                ended: asyncio.Future[None] = loop.create_future()
                future.add_done_callback(lambda _, ended=ended: loop.call_soon_threadsafe(_set, ended))  # type: ignore[misc]
                await ended


class ScopeEmpty:
    """Wait until nothing that was started in a scope is under way, but no longer than `seconds`; answers with whether
    that is so.
    """

    def __init__(self, scope: Scope, seconds: float | None = None) -> None:
        self._scope = scope
        self._seconds = seconds

    def block(self) -> bool:
        if not self._scope.has_engine:
            return True
        empty = Gate()
        self._tell_when_empty(empty.open)
        return empty.wait(self._seconds)

    async def wait(self) -> bool:
        if not self._scope.has_engine:
            return True
        loop = asyncio.get_running_loop()
        empty: asyncio.Future[None] = loop.create_future()
        if self._scope.engine.on_loop_thread():
            self._scope.notify_when_empty(lambda: _set(empty))
        else:
            self._tell_when_empty(lambda: loop.call_soon_threadsafe(_set, empty))
        if not empty.done():
            await asyncio.wait([empty], timeout=self._seconds)
        return empty.done()

    def _tell_when_empty(self, tell: Callable[[], object]) -> None:
        try:
            self._scope.engine.call_soon(lambda: self._scope.notify_when_empty(tell))
        except RuntimeClosedError:  # nothing is under way on a loop that has ended
            tell()


class Written:
    """Wait until everything that was recorded until now is safe, however often the wait is cancelled."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def block(self) -> None:
        written = Gate()
        ERRANDS.add(self)
        try:
            self._recorder.journal.when_written(lambda: self._done(written.open))
            written.wait()
        finally:
            ERRANDS.discard(self)

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        ERRANDS.add(self)
        self._recorder.journal.when_written(lambda: self._done(lambda: loop.call_soon_threadsafe(_set, written)))
        await until_done(written)

    def _done(self, tell: Callable[[], object]) -> None:
        tell()
        ERRANDS.discard(self)


class TakeSlots:
    """Take slots of a named limit; answers with the ticket that gives them back.

    Raises:
        TimeoutError: not had within `timeout` seconds.
    """

    def __init__(self, limit: NamedLimit, slots: int = 1, timeout: float | None = None) -> None:
        self._limit = limit
        self._slots = slots
        self._timeout = timeout

    def block(self) -> Ticket:
        self._limit.check_that_it_has(self._slots)
        granted = Gate()
        ticket = self._limit.ticket(granted.open, self._slots)
        seconds = self._limit.take(ticket)
        if seconds == 0:
            return ticket
        try:
            if asyncio._get_running_loop() is not None:
                raise BlockingWaitError(
                    f"The limit {self._limit.name!r} is full, and waiting for it here would block the event loop. "
                    "Use the async form: `async with concurrency(...)` from upwell.concurrency.asyncio."
                )
            if seconds is None:
                if not granted.wait(self._timeout):
                    raise TimeoutError
            elif self._timeout is not None and seconds > self._timeout:
                clock().sleep(self._timeout)
                raise TimeoutError
            else:
                clock().sleep(seconds)
            if ticket.error is not None:
                raise ticket.error
        except BaseException:
            self._limit.abandon(ticket)
            raise
        return ticket

    async def wait(self) -> Ticket:
        self._limit.check_that_it_has(self._slots)
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()
        ticket = self._limit.ticket(lambda: loop.call_soon_threadsafe(_set, granted), self._slots)
        seconds = self._limit.take(ticket)
        if seconds == 0:
            return ticket
        try:
            async with asyncio.timeout(self._timeout):
                if seconds is None:
                    await granted
                else:
                    await asyncio.sleep(seconds)
            if ticket.error is not None:
                raise ticket.error
        except BaseException:
            self._limit.abandon(ticket)
            raise
        return ticket


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def refuse_to_block(name: str, twin: str) -> None:
    """Raises BlockingWaitError on an event loop's thread, which a function of this name would block."""
    if asyncio._get_running_loop() is not None:
        raise BlockingWaitError(f"{name}(...) would block the event loop here: write `await {twin}(...)`.")


def run_apart(work: Coroutine[Any, Any, T], *, to_its_end: bool = False) -> T:
    """Run a coroutine to its end from a thread that may have a running loop: on a thread beside it then.

    to_its_end: on such a thread where a timeout may interrupt this one, too, for a loop may log what is raised in it by
    surprise, and go on; who is interrupted waits for the coroutine all the same.
    """
    if asyncio._get_running_loop() is None and not (to_its_end and may_be_interrupted()):
        return asyncio.run(work)
    answers: list[Any] = []
    ended = Gate()

    def run() -> None:
        try:
            answers.append((True, asyncio.run(work)))
        except BaseException as error:
            answers.append((False, error))
        finally:
            ended.open()

    thread = threading.Thread(target=run, name="upwell-apart", daemon=True)
    try:
        with uninterrupted():
            thread.start()
        ended.wait()
    except BaseException:
        if thread.ident is None:
            work.close()
        elif to_its_end:
            thread.join()
        raise
    thread.join()
    well, answer = answers[0]
    if not well:
        raise answer
    return answer  # type: ignore[no-any-return]


def live_blocking(life: Life[T]) -> T:
    """Carry out a life in this thread."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = life.send(answer) if error is None else life.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        answer = error = None
        try:
            answer = step.block()
        except BaseException as raised:
            error = raised


async def live_async(life: Life[T]) -> T:
    """Carry out a life on the running loop."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = life.send(answer) if error is None else life.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        answer = error = None
        try:
            answer = await step.wait()
        except BaseException as raised:
            error = raised
