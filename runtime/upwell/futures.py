"""Futures, and waiting for several of them, in sync and in async code."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from upwell.core.errors import BlockingWaitError
from upwell.core.results import StoredValue
from upwell.core.states import COMPLETED, State
from upwell.engine.clock import Gate, clock
from upwell.engine.future import RunFuture, TaskFuture, until_aside, wait_aside, wake_up
from upwell.engine.lot import Lot
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
        return _all_results(self, _Deadline(timeout), raise_on_failure)

    def __await__(self) -> Generator[Any, None, list[R]]:
        futures, results = iter(self), list[R]()
        while (future := _take_those_there(futures, results)) is not None:
            results.append((yield from future.__await__()))
        return results


class LotFutures(FutureList[R]):
    """The futures of a lot, made when somebody looks into the list: from then on it is a plain FutureList.

    That may be at any time, in another thread, while a method here is under way: so none relies on what it is.
    """

    def __init__(self, lot: Lot) -> None:
        super().__init__()
        self.lot: Lot | None = lot  # None: it is filled

    def __len__(self) -> int:
        lot = self.lot
        return len(self) if lot is None else len(lot)

    def __radd__(self, other: list[Any]) -> list[Any]:
        _fill(self)
        return other + self

    def wait(self, timeout: float | None = None) -> None:
        deadline = _Deadline(timeout)
        if _results_of(self.lot, deadline) is None:
            _fill(self)
            self.wait(deadline.left())

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:
        deadline = _Deadline(timeout)
        results = _results_of(self.lot, deadline)
        if results is None:
            _fill(self)
            return _all_results(self, deadline, raise_on_failure)
        return results

    def __await__(self) -> Generator[Any, None, list[R]]:
        lot, results = self.lot, None
        if lot is not None:
            if not lot.is_decided:
                yield from _until_decided(lot).__await__()
            results = lot.results
        if results is None:
            _fill(self)
            return (yield from self.__await__())
        return results


def _fill(futures: LotFutures[Any]) -> None:
    """Make a plain list of it, with all futures in it. From any thread; the first one does it."""
    with _FILLING:
        if futures.lot is not None:
            list[Any].extend(futures, futures.lot.all_runs())
            futures.__class__ = FutureList  # type: ignore[assignment]  # both are laid out alike
            futures.lot = None


def _results_of(lot: Lot | None, deadline: _Deadline) -> list[Any] | None:
    """Block until all have completed, and return their results; None: the single futures are to be asked."""
    if lot is None:
        return None
    if not lot.is_decided and not lot.call.scope.engine.on_loop_thread():
        gate = Gate()
        watcher = gate.open
        lot.watch(watcher)
        wait_aside(gate, deadline.left())
        lot.unwatch(watcher)
    return lot.results


async def _until_decided(lot: Lot) -> None:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object) -> None:
        loop.call_soon_threadsafe(wake_up, waiter)

    lot.watch(wake)
    try:
        await until_aside(waiter)
    finally:
        lot.unwatch(wake)


def _filled_first(name: str) -> Callable[..., Any]:
    """A method of lists that looks into them."""
    plain = getattr(list, name)

    def method(self: LotFutures[Any], *args: Any, **kwargs: Any) -> Any:
        _fill(self)
        return plain(self, *args, **kwargs)

    return functools.wraps(plain)(method)


_FILLING: Final = threading.Lock()
_DO_NOT_LOOK: Final = {
    "__class_getitem__",
    "__getattribute__",
    "__hash__",
    "__init__",
    "__len__",
    "__new__",
    "__sizeof__",
}
for _name in {"__reduce_ex__", *vars(list)} - _DO_NOT_LOOK:
    if callable(getattr(list, _name)):
        setattr(LotFutures, _name, _filled_first(_name))


def future_list(runs: Sequence[Any]) -> FutureList[Any]:
    """The futures of a map, in the order of its inputs."""
    return LotFutures(runs) if isinstance(runs, Lot) else FutureList(runs)


def _all_results(futures: FutureList[R], deadline: _Deadline, raise_on_failure: bool) -> list[R]:
    rest, results = iter(futures), list[R]()
    while (future := _take_those_there(rest, results)) is not None:
        future.wait(deadline.left())
        if not future.is_done():
            name = getattr(future, "name", future)
            raise TimeoutError(f"{name!r} has not ended within {deadline.seconds:.3g} seconds; it goes on.")
        results.append(future.result(None, raise_on_failure))
    return results


def _take_those_there(futures: Iterator[TaskFuture[R]], results: list[R]) -> TaskFuture[R] | None:
    """Append the results that are in memory, up to the first future that must be asked; returns that one."""
    future: Any
    for future in futures:  # told here: a call for each would cost as much as all else
        if type(future) is not RunFuture or future.status != _COMPLETED or type(future.value) is StoredValue:
            return future  # type: ignore[no-any-return]  # one of these
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
        self.seconds = seconds
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
