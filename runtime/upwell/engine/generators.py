"""Generators that are runs: such a run is under way for as long as the caller takes from it.

A run's beginning is a `Life` that answers with its `Iteration`; what follows is the same for task runs and flow runs,
and told twice only because Python has two kinds of generators. What the caller sends or throws reaches the generator.

An attempt that fails before its first item may be followed by another; later, the caller would get items twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any, Final, NamedTuple

from upwell.core.lifecycle import RETURNED, Outcome
from upwell.engine.clock import clock
from upwell.engine.interrupts import interrupted_after
from upwell.engine.limits import NamedLimit
from upwell.engine.steps import Life, live_async, live_blocking
from upwell.engine.waits import give_back_tickets, take_tickets


class Iteration(NamedTuple):
    """A generator of the user's, and the run that it is.

    inside: the code inside is the run's own; gives what is to be thrown into it, if anything is.
    bounds: of a step of it.
    end: an attempt is over, with this outcome, before its first item or not; answers with the generator of the next
    attempt, or None: the run has ended.
    """

    run: Any  # has `state` and `exception()`
    generator: Any
    inside: Callable[[], AbstractContextManager[BaseException | None]]
    outcome: Callable[[BaseException], Outcome]
    end: Callable[[Outcome, bool], Life[Any]]
    bounds: Bounds


class Bounds:
    """What a generator may have while its own code runs, and not while its caller is busy with an item.

    limits: it holds a slot of each. seconds: how long one attempt may take, None: as long as it likes; error: what is
    raised after that.
    """

    def __init__(
        self, run: Any, limits: list[NamedLimit], seconds: float | None, error: Callable[[], BaseException]
    ) -> None:
        self._run = run
        self._limits = limits
        self._seconds = self._left = seconds
        self._error = error
        self._are_none = not limits and seconds is None

    def renew(self) -> None:
        """Another attempt begins."""
        self._left = self._seconds

    def seconds_left(self) -> float | None:
        """Of this attempt's time; None: as long as it likes."""
        return self._left

    def blocking(self) -> AbstractContextManager[None]:
        """Around a step in this thread."""
        return _UNBOUNDED if self._are_none else self._blocking()

    def waiting(self) -> AbstractAsyncContextManager[None]:
        """Around a step on the loop."""
        return _UNBOUNDED if self._are_none else self._waiting()

    @contextmanager
    def _blocking(self) -> Generator[None, None, None]:
        if self._limits:
            self._run.tickets = live_blocking(take_tickets(self._limits))
        began = clock().time()
        try:
            with interrupted_after(self._left, self._error):
                yield
        finally:
            self._over(began)

    @asynccontextmanager
    async def _waiting(self) -> AsyncGenerator[None, None]:
        if self._limits:
            self._run.tickets = await live_async(take_tickets(self._limits))
        began, limit = clock().time(), asyncio.timeout(self._left)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise  # the user's own
            raise self._error() from error
        finally:
            self._over(began)

    def _over(self, began: float) -> None:
        if self._left is not None:
            self._left = max(self._left - (clock().time() - began), 1e-6)
        if self._limits:
            give_back_tickets(self._run)


_UNBOUNDED: Final = nullcontext()


def iterate(beginning: Life[Iteration]) -> Generator[Any, Any, Any]:
    """Yields what the run's generator yields, and ends the run when it is exhausted, fails or is left."""
    run, generator, inside, outcome, end, bounds = live_blocking(beginning)
    take, given, untouched = generator.send, None, True
    while True:
        try:
            with inside() as interruption, bounds.blocking():
                item = take(given) if interruption is None else generator.throw(interruption)
        except StopIteration as stop:
            live_blocking(end(Outcome(RETURNED, stop.value), False))
            if not run.state.is_completed():
                raise run.exception() from None
            return stop.value
        except BaseException as error:
            generator = live_blocking(end(outcome(error), untouched))
            if generator is None:
                raise
            take, given = generator.send, None
            continue
        untouched, thread_id = False, threading.get_ident()
        try:
            given = yield item
            take = generator.send
        except GeneratorExit:
            try:
                with inside():
                    generator.close()
            except BaseException as error:
                _end_left(end(outcome(error), False), thread_id)
                raise
            _end_left(end(Outcome(RETURNED), False), thread_id)
            raise
        except BaseException as error:
            take, given = generator.throw, error


def _end_left(life: Life[Any], thread_id: int) -> None:
    """End the run of a generator that was left, and last taken from in this thread.

    The garbage collector leaves one in whatever thread it runs: maybe in that of the loop or of the journal, which
    would then wait for itself.
    """
    if threading.get_ident() == thread_id:
        live_blocking(life)
    else:
        threading.Thread(target=live_blocking, args=(life,), name="upwell-left", daemon=False).start()


async def iterate_async(beginning: Life[Iteration]) -> AsyncGenerator[Any, Any]:
    """The same for an async generator."""
    run, generator, inside, outcome, end, bounds = await live_async(beginning)
    take, given, untouched = generator.asend, None, True
    while True:
        try:
            with inside() as interruption:
                async with bounds.waiting():
                    item = await (take(given) if interruption is None else generator.athrow(interruption))
        except StopAsyncIteration:
            break
        except BaseException as error:
            generator = await live_async(end(outcome(error), untouched))
            if generator is None:
                raise
            take, given = generator.asend, None
            continue
        untouched = False
        try:
            given = yield item
            take = generator.asend
        except GeneratorExit:
            try:
                with inside():
                    await generator.aclose()
            except BaseException as error:
                await live_async(end(outcome(error), False))
                raise
            await live_async(end(Outcome(RETURNED), False))
            raise
        except BaseException as error:
            take, given = generator.athrow, error
    await live_async(end(Outcome(RETURNED), False))
    if not run.state.is_completed():
        raise run.exception()
