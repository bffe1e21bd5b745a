"""Which clock the engine reads; a test replaces it."""

from __future__ import annotations

import datetime as dt
import threading
import time as system
from typing import TYPE_CHECKING, Any, Final

from upwell.core.seams import Clock, Lock

if TYPE_CHECKING:
    import asyncio

INTERRUPTIBLE = threading.local()
"""`depth` above zero: this thread's code may be interrupted by another thread, so it must not block for long."""

SLICE_SECONDS: Final = 0.05
"""How long such a thread blocks before it lets itself be interrupted."""


class SystemClock:
    """The machine's own clock."""

    time = staticmethod(system.time)
    sleep = staticmethod(system.sleep)

    def wait(self, lock: Lock, seconds: float | None = None) -> bool:
        """Block this thread until it has the lock, for at most so many seconds; whether it has."""
        if not getattr(INTERRUPTIBLE, "depth", 0):
            return lock.acquire(timeout=-1 if seconds is None else max(seconds, 0))
        end = None if seconds is None else system.monotonic() + seconds
        while True:  # an exception raised in this thread is seen between two bytecodes only
            left = SLICE_SECONDS if end is None else min(SLICE_SECONDS, end - system.monotonic())
            if lock.acquire(timeout=max(left, 0)):
                return True
            if end is not None and system.monotonic() >= end:
                return False

    def interrupting(self, seconds: float, kind: type[BaseException]) -> None:
        """Machine time interrupts code by a signal or a watchdog, not through this clock."""

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """A new event loop: uvloop's where it is installed."""
        try:
            import uvloop  # only here: it costs milliseconds, and most programs bring a loop
        except ImportError:
            import asyncio

            return asyncio.new_event_loop()
        return uvloop.new_event_loop()


_current: Clock = SystemClock()


def clock() -> Clock:
    """The clock in use."""
    return _current


def use_clock(replacement: Clock) -> Clock:
    """Use this clock from now on; returns the one that was in use."""
    global _current
    previous, _current = _current, replacement
    return previous


ERRANDS: Final[set[object]] = set()
"""What somebody waits for that takes machine time, such as a write to the store: time that jumps waits, too."""


class Gate:
    """Closed at first. A thread waits before it until somebody opens it, from any thread, maybe more than once.

    It is the lock that the clock waits for, and says that nobody waits from the moment on at which it is opened, not
    only when the one who waited has noticed: else time might jump in between.
    """

    __slots__ = ("_lock", "_opened", "acquire")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._opened = False
        self.acquire = self._lock.acquire

    def locked(self) -> bool:
        """Whether the one who waits, if anybody does, has to go on waiting."""
        return not self._opened and self._lock.locked()

    def open(self, *_: Any) -> None:
        """Let the one who waits, or comes next, pass."""
        self._opened = True
        try:
            self._lock.release()
        except RuntimeError:  # it is open
            pass

    def wait(self, seconds: float | None = None) -> bool:
        """Block this thread until the gate is open, for at most so many seconds; whether it was opened."""
        passed = _current.wait(self, seconds)
        if passed:
            self._opened = False
        return passed


def moment(seconds: float) -> dt.datetime:
    """Seconds since the epoch as an aware datetime."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
