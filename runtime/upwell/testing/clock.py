"""A clock that jumps: when everything waits, it goes to the next moment for which somebody waits.

What counts as busy, and so holds time still: the thread that opened the clock and those that run its loops,
unless they wait; a function in a loop's executor; an attempt that a task runner executes. What they wait in must
be known to the clock: awaiting on a loop, futures, limits, and retry delays are. Work that takes machine time
takes no virtual time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from upwell.core.errors import UpwellError
from upwell.core.seams import Lock
from upwell.core.states import RUNNING
from upwell.engine.clock import ERRANDS, use_clock
from upwell.engine.current import close_portal
from upwell.engine.future import RunFuture, run_that_waits
from upwell.engine.remote import OPEN
from upwell.engine.waits import holders_of
from upwell.testing.loops import Select, VirtualLoop, VirtualPolicy
from upwell.testing.waiting import describe_task, describe_thread

T = TypeVar("T")
Run = RunFuture[Any]

POLL_SECONDS: Final = 0.005
"""How often a thread that waits looks whether all others wait, too; most find out at once."""

CROWDED_SECONDS: Final = 0.05
"""How long nothing may have moved before work that stands in line behind threads that wait is taken to wait; of the
time between two looks no more counts than a look takes, for a machine that stands still moves nothing."""


class DeadlockError(UpwellError, RuntimeError):
    """Everything waits, and nobody for a time that will come; lists who waits, and where."""


class _Waiting:
    """One thread that waits: for a lock, for a moment, or for both; or its loop does."""

    def __init__(self, deadline: float | None, lock: Lock | None = None, loop: VirtualLoop | None = None) -> None:
        self.thread_id = threading.get_ident()
        self.deadline = deadline
        self.lock = lock
        self.loop = loop
        self.bell = threading.Event()
        self.called = False
        self.looks = loop is not None
        waiting = None if loop is not None else run_that_waits()
        self.run = waiting
        self.holders: list[Run] = [] if waiting is None else holders_of(waiting)

    def blocks(self, now: float) -> bool:
        """Whether it really waits: nobody has let it go already, nor may have before it began to wait."""
        if self.called or self.looks or (self.deadline is not None and self.deadline <= now):
            return False
        return self.lock is None or self.lock.locked()

    def wake(self) -> None:
        self.bell.set()
        if self.loop is not None:
            self.loop.wake()


class VirtualClock:
    """Time that passes only by jumps, for all loops and threads that use it. Made by `virtual_clock()`.

    elapsed: virtual seconds since it was made.
    """

    def __init__(self, start: float | None = None) -> None:
        self._start = time.time() if start is None else start
        self.elapsed = 0.0
        self._changing = threading.RLock()
        self._opener = threading.get_ident()
        self._threads: Counter[int] = Counter()
        self._waiting: dict[int, _Waiting] = {}
        self._errands: dict[object, int | None] = {}
        self._interrupts: dict[int, list[tuple[float, type[BaseException]]]] = {}
        self._moves = 0
        self._deadlock = ""
        self._outermost: asyncio.Task[Any] | None = None
        self._crowded = (0, 0.0, 0.0)

    # --- what users call --------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on a loop of this clock, as `asyncio.run` does on one of the machine's.

        Raises:
            DeadlockError: everything waits, and no timer is left.
        """

        async def outermost() -> T:
            self._outermost = asyncio.current_task()
            return await main

        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            try:
                return runner.run(outermost())
            except asyncio.CancelledError:
                if self._deadlock:
                    raise DeadlockError(self._deadlock) from None
                raise
            finally:
                self._outermost = None

    def time(self) -> float:
        """Seconds since the epoch, as the code under test sees them."""
        return self._start + self.elapsed

    def sleep(self, seconds: float) -> None:
        """Block this thread for so many virtual seconds."""
        self._block(None, self.elapsed + max(seconds, 0.0))

    # --- the rest of `core.seams.Clock` -----------------------------------------------------------------

    def wait(self, lock: Lock, seconds: float | None = None) -> bool:
        """Block this thread until it has the lock, for at most so many virtual seconds; whether it has."""
        if lock.acquire(False):
            return True
        return self._block(lock, None if seconds is None else self.elapsed + max(seconds, 0.0))

    @contextmanager
    def interrupting(self, seconds: float, kind: type[BaseException]) -> Generator[None]:
        """Raise this in the first wait inside that lasts longer than so many virtual seconds from now."""
        due = self._interrupts.setdefault(threading.get_ident(), [])
        entry = (self.elapsed + seconds, kind)
        due.append(entry)
        try:
            yield
        finally:
            due.remove(entry)

    def new_loop(self) -> VirtualLoop:
        """A new event loop that goes by this clock."""
        return VirtualLoop(self)

    # --- what loops say -----------------------------------------------------------------------------------

    def join(self) -> None:
        """What this thread does counts from now on."""
        with self._changing:
            self._threads[threading.get_ident()] += 1

    def leave(self) -> None:
        """What this thread does does not count any more."""
        with self._changing:
            self._threads[threading.get_ident()] -= 1
            self._threads = +self._threads

    def woken(self, loop: VirtualLoop, wake: Callable[[], Any]) -> Any:
        """Do what wakes this loop: from this moment it does not wait."""
        with self._changing:
            for waiting in self._waiting.values():
                if waiting.loop is loop:
                    waiting.called = True
            return wake()

    def run_errand(self, future: asyncio.Future[Any]) -> object:
        """Something is under way elsewhere until this future is done; returns its key."""
        key = object()
        with self._changing:
            self._errands[key] = None
        future.add_done_callback(lambda _: self._errands.pop(key, None))
        return key

    def errand_begun(self, key: object) -> None:
        """It has begun in the thread that calls this."""
        with self._changing:
            if key in self._errands:
                self._errands[key] = threading.get_ident()

    def wait_in_loop(self, loop: VirtualLoop, timeout: float | None, select: Select) -> Any:
        """Wait until select has something, somebody calls the loop, or virtual time is up; what select has."""
        waiting = _Waiting(None if timeout is None else self.elapsed + timeout, loop=loop)
        with self._entered(waiting):
            found = select(0)  # what came before it counted as waiting
            waiting.looks = False
            while not found and waiting.blocks(self.elapsed):
                self._go_on(waiting)
                found = select(POLL_SECONDS if waiting.blocks(self.elapsed) else 0)
            return found

    # --- waiting ------------------------------------------------------------------------------------------

    def _block(self, lock: Lock | None, deadline: float | None) -> bool:
        interrupt = min(self._interrupts.get(threading.get_ident(), ()), key=lambda due: due[0], default=None)
        until = deadline
        if interrupt is not None:
            until = interrupt[0] if deadline is None else min(deadline, interrupt[0])
        waiting = _Waiting(until, lock)
        with self._entered(waiting):
            while True:
                if waiting.blocks(self.elapsed):
                    self._go_on(waiting)
                seconds = POLL_SECONDS if waiting.blocks(self.elapsed) else 0
                if lock is None:
                    waiting.bell.wait(seconds)
                elif lock.acquire(timeout=seconds):
                    return True
                if interrupt is not None and interrupt[0] <= self.elapsed:
                    raise interrupt[1]
                if deadline is not None and deadline <= self.elapsed:
                    return False

    @contextmanager
    def _entered(self, waiting: _Waiting) -> Generator[None]:
        with self._changing:
            self._moves += 1
            self._waiting[waiting.thread_id] = waiting
        try:
            yield
        finally:
            with self._changing:
                self._moves += 1
                self._waiting.pop(waiting.thread_id, None)

    def _go_on(self, waiting: _Waiting) -> None:
        """If everything waits, go to the next moment that somebody waits for."""
        with self._changing:
            if not self._all_wait():
                return
            moments = [other.deadline for other in self._waiting.values() if other.deadline is not None]
            if moments:
                self.elapsed = min(moments)
                for other in self._waiting.values():
                    if other.deadline is not None and other.deadline <= self.elapsed:
                        other.wake()
            elif waiting.thread_id == self._opener and not self._watches_files():
                self._give_up(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        """Nothing will ever move again: cancel what `run` runs, or raise where this thread waits."""
        self._deadlock = self._deadlock or self._who_waits()  # what follows from the first is not news
        task, self._outermost = self._outermost, None
        if task is None or waiting.loop is not task.get_loop():
            raise DeadlockError(self._deadlock)
        waiting.called = True
        task.get_loop().call_soon(task.cancel)

    # --- who waits ----------------------------------------------------------------------------------------

    def _all_wait(self) -> bool:
        now = self.elapsed
        if not all(waiting.blocks(now) for waiting in self._waiting.values()):
            return False
        if any(thread_id not in self._waiting for thread_id in self._threads):
            return False
        begun = [thread_id for thread_id in self._errands.values() if thread_id is not None]
        if any(thread_id not in self._waiting for thread_id in begun):
            return False
        in_line = len(begun) < len(self._errands)
        if in_line and not begun:
            return False
        if ERRANDS:
            return False
        try:
            remotes = [remote.under_way() for remote in OPEN]
        except RuntimeError:  # one was opened this moment
            return False
        return self._attempts_wait(remotes, in_line)

    def _attempts_wait(self, remotes: list[list[Any]], in_line: bool) -> bool:
        """Whether all that runners execute waits, or stands in line behind what waits."""
        waiting = {id(run) for waiting in self._waiting.values() for run in waiting.holders}
        for under_way in remotes:
            others = [run for run in under_way if id(run) not in waiting]
            if others and (len(others) == len(under_way) or any(run.status is RUNNING for run in others)):
                return False
            in_line = in_line or bool(others)
        if not in_line:
            return True
        moves, watched, looked = self._crowded
        now = time.monotonic()
        watched = watched + min(now - looked, 2 * POLL_SECONDS) if moves == self._moves else 0.0
        self._crowded = (self._moves, watched, now)
        return watched >= CROWDED_SECONDS

    def _watches_files(self) -> bool:
        """Whether some loop waits for the world outside."""
        loops = [waiting.loop for waiting in self._waiting.values() if waiting.loop is not None]
        return any(loop.watches_files() for loop in loops)

    def _who_waits(self) -> str:
        lines: list[str | None] = []
        for waiting in self._waiting.values():
            if waiting.loop is None:
                lines.append(describe_thread(waiting.thread_id, waiting.run))
            else:
                lines.extend(describe_task(task) for task in asyncio.all_tasks(waiting.loop))
        found = "\n".join(f"- {line}" for line in lines if line is not None)
        return f"Everything waits, and no timer is left that could end it:\n{found}"


@contextmanager
def virtual_clock(start: float | None = None) -> Generator[VirtualClock]:
    """Inside, time jumps whenever everything waits: `with virtual_clock() as clock: clock.run(main())`.

    Sync flows called inside just work, and so does `asyncio.run`. `clock.elapsed` says how many virtual seconds
    have passed.

    Args:
        start: the time of day to begin at, in seconds since the epoch; now unless said.

    Raises:
        RuntimeError: an event loop runs in this thread; its time cannot be changed any more.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "virtual_clock() cannot change the time of a loop that runs. Make the test a plain function, and run "
            "its coroutine inside: `with virtual_clock() as clock: clock.run(main())`."
        )
    close_portal()
    clock = VirtualClock(start)
    policy = asyncio.get_event_loop_policy()  # pyright: ignore[reportDeprecated]  # from 3.14 on
    previous = use_clock(clock)
    asyncio.set_event_loop_policy(VirtualPolicy(clock.new_loop))  # pyright: ignore[reportDeprecated]  # from 3.14 on
    clock.join()
    try:
        yield clock
    finally:
        try:
            close_portal()
        finally:
            clock.leave()
            asyncio.set_event_loop_policy(policy)  # pyright: ignore[reportDeprecated]  # from 3.14 on
            use_clock(previous)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end with a clock that jumps; see `virtual_clock`.

    Raises:
        DeadlockError: everything waits, and no timer is left.
    """
    with virtual_clock() as clock:
        return clock.run(main)
