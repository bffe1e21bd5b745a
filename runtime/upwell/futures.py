"""Futures, and waiting for several of them, in sync and in async code."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any, Final, Generic, NamedTuple, TypeVar

from upwell.core.errors import BlockingWaitError
from upwell.core.results import StoredValue
from upwell.core.states import COMPLETED, State
from upwell.engine.clock import Gate, clock
from upwell.engine.future import RunFuture, TaskFuture, wait_aside
from upwell.engine.steps import refuse_to_block
from upwell.engine.submit import FINDER, value_of

R = TypeVar("R")

_COMPLETED: Final[str] = COMPLETED.value


class FutureList(list[TaskFuture[R]], Generic[R]):
    """The futures of a map, in the order of its inputs. `await` it, or call `result()`, for all results."""

    def wait(self, timeout: float | None = None) -> None:
        """Block until all have ended, for at most `timeout` seconds; returns in either case."""
        wait(self, timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:
        """All results, in order; `timeout` seconds are for all together.

        Raises:
            TimeoutError: not all have ended in time. The exception of the first that did not complete, unless
            `raise_on_failure` is False: then exceptions stand in the list.
        """
        deadline = _Deadline(timeout)
        futures, results = iter(self), list[R]()
        while (future := _take_those_there(futures, results)) is not None:
            results.append(future.result(deadline.left(), raise_on_failure))
        return results

    def __await__(self) -> Generator[Any, None, list[R]]:
        futures, results = iter(self), list[R]()
        while (future := _take_those_there(futures, results)) is not None:
            results.append((yield from future.__await__()))
        return results


def _take_those_there(futures: Iterator[TaskFuture[R]], results: list[R]) -> TaskFuture[R] | None:
    """Append the results that are in memory, up to the first future that must be asked; returns that one."""
    for future in futures:  # told here: a call for each would cost as much as all else
        if type(future) is not RunFuture or future.status != _COMPLETED or type(future.value) is StoredValue:
            return future
        results.append(future.value)
    return None


class DoneAndNotDoneFutures(NamedTuple, Generic[R]):
    """Which of the futures had ended when the wait was over, and which had not; each in their given order."""

    done: list[TaskFuture[R]]
    not_done: list[TaskFuture[R]]


def wait(futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> DoneAndNotDoneFutures[R]:
    """Block until all have ended, for at most `timeout` seconds.

    Raises:
        BlockingWaitError: on an event loop's own thread; use `await wait_async(...)` there.
    """
    futures = list(futures)
    deadline = _Deadline(timeout)
    for future in futures:
        future.wait(deadline.left())
    return _sorted(futures)


async def wait_async(futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> DoneAndNotDoneFutures[R]:
    """Wait on the running loop until all have ended, for at most `timeout` seconds."""
    futures = list(futures)
    try:
        async with asyncio.timeout(timeout):
            async for _ in as_completed(futures):
                pass
    except TimeoutError:
        pass
    return _sorted(futures)


def first(futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> TaskFuture[R]:
    """Block until one has ended, well or badly, and return that one.

    Raises:
        TimeoutError: none has, within `timeout` seconds. ValueError: there are no futures.
        BlockingWaitError: called on an event loop's thread, where `await first_async(...)` is right.
    """
    futures = list(futures)
    if not all(future.is_done() for future in futures):
        refuse_to_block("first", "first_async")
    for future in as_completed(_some(futures), timeout):
        return future
    raise AssertionError("as_completed yields each future or raises")


async def first_async(futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> TaskFuture[R]:
    """The same on the running loop."""
    async for future in as_completed(_some(futures), timeout):
        return future
    raise AssertionError("as_completed yields each future or raises")


class as_completed(Generic[R]):  # it is called like the function that other libraries have
    """The futures in the order in which they end: `for future in ...`, or `async for` on a loop.

    Raises:
        TimeoutError: not all have ended `timeout` seconds after the loop over them began.
    """

    def __init__(self, futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> None:
        self._futures = list(futures)
        self._timeout = timeout

    def __iter__(self) -> Iterator[TaskFuture[R]]:
        if asyncio._get_running_loop() is not None and not all(future.is_done() for future in self._futures):
            raise BlockingWaitError(
                "A blocking wait on an event loop's own thread would stop the loop. Write `async for future in "
                "as_completed(...)`."
            )
        ended: deque[TaskFuture[R]] = deque()
        gate = Gate()
        deadline = _Deadline(self._timeout)

        def take(future: TaskFuture[R]) -> None:
            ended.append(future)
            gate.open()

        self._watch(take)
        for count in range(len(self._futures)):
            while not ended:
                if not wait_aside(gate, deadline.left()) and not ended:
                    raise self._late(count)
            yield ended.popleft()

    async def __aiter__(self) -> AsyncIterator[TaskFuture[R]]:
        ended: asyncio.Queue[TaskFuture[R]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        deadline = _Deadline(self._timeout)
        self._watch(lambda future: loop.call_soon_threadsafe(ended.put_nowait, future))
        for count in range(len(self._futures)):
            try:
                async with asyncio.timeout(deadline.left()):
                    future = await ended.get()
            except TimeoutError:
                raise self._late(count) from None
            yield future

    def _watch(self, take: Callable[[Any], object]) -> None:
        for future in self._futures:
            future.add_done_callback(take)

    def _late(self, count: int) -> TimeoutError:
        total = len(self._futures)
        return TimeoutError(f"{total - count} (of {total}) futures unfinished after {self._timeout} seconds")


def resolve_futures_to_results(value: Any) -> Any:
    """The value with each future in it, at any depth, replaced by its result; waits for them."""
    for dependency in FINDER.find(value):
        dependency.future.wait()
    return FINDER.resolve(value, _result_of)


def resolve_futures_to_states(value: Any) -> Any:
    """The value with each future in it, at any depth, replaced by its final state; waits for them."""
    for dependency in FINDER.find(value):
        dependency.future.wait()
    return FINDER.resolve(value, _state_of)


def _result_of(future: Any, allow_failure: bool) -> Any:
    return value_of(future, allow_failure) if allow_failure else future.result()


def _state_of(future: Any, allow_failure: bool) -> State:
    return future.state  # type: ignore[no-any-return]  # of any future


def _sorted(futures: list[TaskFuture[R]]) -> DoneAndNotDoneFutures[R]:
    done = [future for future in futures if future.is_done()]
    return DoneAndNotDoneFutures(done, [future for future in futures if not future.is_done()])


def _some(futures: Iterable[TaskFuture[R]]) -> list[TaskFuture[R]]:
    futures = list(futures)
    if not futures:
        raise ValueError("There is no first of no futures.")
    return futures


class _Deadline:
    """One budget of seconds for several waits; None has no end."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else clock().time() + seconds

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - clock().time())


__all__ = [
    "DoneAndNotDoneFutures",
    "FutureList",
    "TaskFuture",
    "as_completed",
    "first",
    "first_async",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "wait",
    "wait_async",
]
