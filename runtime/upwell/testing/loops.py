"""Event loops that go by a virtual clock: they never wait for a timer, they let the clock jump to it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Select = Callable[[float], list[tuple[selectors.SelectorKey, int]]]

RESOLUTION_SECONDS: Final = 1e-6
"""A timer that is nearer than this is due; sums of floats must not make a loop turn for nothing."""


class LoopClock(Protocol):
    """What a loop needs of its clock."""

    elapsed: float

    def wait_in_loop(self, loop: VirtualLoop, timeout: float | None, select: Select) -> Any:
        """Wait until select has something, somebody calls the loop, or virtual time is up; what select has."""

    def woken(self, loop: VirtualLoop, wake: Callable[[], Any]) -> Any:
        """Do what wakes this loop, so that the clock knows."""

    def run_errand(self, future: asyncio.Future[Any]) -> object:
        """Something is under way elsewhere until this future is done; returns its key."""

    def errand_begun(self, key: object) -> None:
        """It has begun in the thread that calls this."""

    def join(self) -> None:
        """What this thread does counts from now on."""

    def leave(self) -> None:
        """What this thread does does not count any more."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """The default event loop, but for its time."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self._files = _Selector(self, clock)
        super().__init__(self._files)
        self._clock_resolution = RESOLUTION_SECONDS

    def time(self) -> float:
        return self._clock.elapsed

    def wake(self) -> None:
        """Have the loop look again; from any thread."""
        self._write_to_self()  # type: ignore[attr-defined]  # what call_soon_threadsafe does

    def watches_files(self) -> bool:
        """Whether it waits for files or sockets other than the one that wakes it."""
        return len(self._files.get_map()) > 1

    def run_forever(self) -> None:
        self._clock.join()
        try:
            super().run_forever()
        finally:
            self._clock.leave()

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        parent = super().call_soon_threadsafe
        handle: asyncio.Handle = self._clock.woken(self, lambda: parent(callback, *args, context=context))
        return handle

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        announced: asyncio.Future[Any] = self.create_future()
        key = self._clock.run_errand(announced)

        def errand() -> T:
            self._clock.errand_begun(key)
            return func(*args)

        in_threads = executor is None or isinstance(executor, ThreadPoolExecutor)
        future = (
            super().run_in_executor(executor, errand) if in_threads else super().run_in_executor(executor, func, *args)
        )
        future.add_done_callback(lambda _: announced.cancel())
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the executor's threads; the timeout, of Python 3.12 and later, is not needed: time stands still."""
        announced: asyncio.Future[Any] = self.create_future()
        self._clock.run_errand(announced)
        try:
            await super().shutdown_default_executor()
        finally:
            announced.cancel()


class _Selector(selectors.DefaultSelector):
    """Watches files as the default does, and leaves the waiting to the clock."""

    def __init__(self, loop: VirtualLoop, clock: LoopClock) -> None:
        super().__init__()
        self._loop = loop
        self._virtual = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        found: list[tuple[selectors.SelectorKey, int]] = self._virtual.wait_in_loop(self._loop, timeout, super().select)
        return found


class VirtualPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes `asyncio.run` and its like use loops of this clock."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        super().__init__()
        self._new_loop = new_loop

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return self._new_loop()
