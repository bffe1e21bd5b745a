"""Interrupting code that does not yield: timeouts of sync code, and Ctrl-C.

A sync function on the main thread is interrupted by a signal, which even cuts `time.sleep` short. On another
thread an exception is raised at its next bytecode; code inside a C call notices only after the call.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from upwell.engine.clock import INTERRUPTIBLE, clock

KILLED_BY_CTRL_C: Final = 130  # what a shell reports for a program that SIGINT ended


class Interrupted(BaseException):
    """Raised inside the user's code when its time is up; never seen by users."""


class Stopped(KeyboardInterrupt):
    """Raised inside a flow run's code when somebody has asked for its end: for that code it is as if by Ctrl-C."""


def raise_in_thread(thread_id: int, kind: type[BaseException]) -> None:
    """Raise an exception in another thread at its next bytecode."""
    _set_async_exception(thread_id, kind)


def clear_raise_in_thread(thread_id: int) -> None:
    """Take back an exception that has not been raised yet."""
    _set_async_exception(thread_id, None)


def _set_async_exception(thread_id: int, kind: type[BaseException] | None) -> None:
    import ctypes  # only here: few programs interrupt a thread

    exception = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), exception)


@contextmanager
def interrupted_after(seconds: float | None, error: Callable[[], BaseException]) -> Generator[None, None, None]:
    """Interrupt the code inside after so many seconds, and raise `error()` in its place."""
    if seconds is None:
        yield
    elif (by_clock := clock().interrupting(seconds, Interrupted)) is not None:
        try:
            with by_clock:
                yield
        except Interrupted:
            raise error() from None
    elif threading.current_thread() is threading.main_thread() and _alarm_is_free():
        with _by_alarm(seconds, error):
            yield
    else:
        with _by_watchdog(seconds, error):
            yield


def _alarm_is_free() -> bool:
    return hasattr(signal, "setitimer") and (
        signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN, None, _on_alarm)
    )


def _on_alarm(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted


@contextmanager
def _by_alarm(seconds: float, error: Callable[[], BaseException]) -> Generator[None, None, None]:
    previous = signal.signal(signal.SIGALRM, _on_alarm)
    outer_left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    if outer_left and outer_left < seconds:
        signal.setitimer(signal.ITIMER_REAL, outer_left)  # a run around this one ends earlier
    try:
        yield
    except Interrupted:
        if outer_left and outer_left < seconds:
            raise
        raise error() from None
    finally:
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if outer_left:
            used = seconds - left if not outer_left < seconds else outer_left - left
            signal.setitimer(signal.ITIMER_REAL, max(outer_left - used, 1e-6))


@contextmanager
def _by_watchdog(seconds: float, error: Callable[[], BaseException]) -> Generator[None, None, None]:
    thread_id = threading.get_ident()
    kind: type[BaseException] = type("Interrupted", (Interrupted,), {})  # its own: timeouts may be nested
    lock = threading.Lock()
    over = fired = False

    def fire() -> None:
        nonlocal fired
        with lock:
            if not over:
                fired = True
                raise_in_thread(thread_id, kind)

    watchdog = threading.Timer(seconds, fire)
    watchdog.daemon = True
    watchdog.start()
    INTERRUPTIBLE.depth = getattr(INTERRUPTIBLE, "depth", 0) + 1
    try:
        try:
            yield
        finally:
            INTERRUPTIBLE.depth -= 1
            with lock:
                over = True
            watchdog.cancel()
    except kind:
        raise error() from None
    if fired:  # it came too late to hit anything inside: take it back, and say what is true
        clear_raise_in_thread(thread_id)
        raise error()


# --- Ctrl-C -----------------------------------------------------------------------------------------------

_asked: list[Callable[[], BaseException | None]] = []
"""Why the main thread is to be interrupted, where it is not by a key."""

_handler: Any = None
"""Ours for Ctrl-C, the last one that was set."""

_presses = 0
_pressed_at = 0.0

ONE_PRESS_SECONDS: Final = 0.05
"""Signals closer than this are one press of a key: some tools signal a process and its group as well."""


@contextmanager
def ctrl_c_twice_kills() -> Generator[None, None, None]:
    """Around an outermost flow on the main thread: the first Ctrl-C cancels, a second one ends the process.

    The first is passed on to whoever handled it before: Python's KeyboardInterrupt, or the cancellation that
    `asyncio.run` makes of it. A handler of the application's own is left alone.
    """
    global _presses, _handler
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)
    if not _is_a_default(previous):
        yield
        return
    _presses = 0

    def on_ctrl_c(number: int, frame: FrameType | None) -> None:
        global _presses, _pressed_at
        if _asked:
            if (error := _asked.pop(0)()) is not None:
                raise error
            return
        now = time.monotonic()
        if _presses and now - _pressed_at < ONE_PRESS_SECONDS:
            return
        _presses, _pressed_at = _presses + 1, now
        if _presses > 1:
            kill_now()
        sys.stderr.write("\nCtrl-C: cancelling what runs. Press Ctrl-C again to kill.\n")
        previous(number, frame)  # type: ignore[operator, misc]  # one of the defaults, which are functions

    _handler = on_ctrl_c
    signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        yield
    finally:
        _asked.clear()
        if signal.getsignal(signal.SIGINT) is on_ctrl_c:
            signal.signal(signal.SIGINT, signal.default_int_handler if _is_over(previous) else previous)


def interrupt_main_thread(why: Callable[[], BaseException | None]) -> bool:
    """Interrupt what the main thread does, even a sleep, from another thread; whether that is possible.

    why: called in the main thread; what it is to raise, or None if that is of no use any more.
    """
    if _handler is None or signal.getsignal(signal.SIGINT) is not _handler or not hasattr(signal, "pthread_kill"):
        return False
    _asked.append(why)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    return True


def _is_over(handler: Any) -> bool:
    """Whether this is the handler of an `asyncio.run` that has ended."""
    main_task = handler.keywords.get("main_task") if isinstance(handler, functools.partial) else None  # pyright: ignore
    return main_task is not None and main_task.done()


def ctrl_c_was_pressed() -> bool:
    """Whether the cancellation that is under way came from Ctrl-C."""
    return _presses > 0


BEFORE_KILL: Final[list[Callable[[], None]]] = []
"""What ends the worker processes of a task runner that has some; runners add themselves."""


def kill_now() -> None:
    """End this process and its worker processes, at once."""
    for kill in BEFORE_KILL:
        kill()
    sys.stderr.write("Killed.\n")
    sys.stderr.flush()
    os._exit(KILLED_BY_CTRL_C)


def _is_a_default(handler: Any) -> bool:
    inner = handler.func if isinstance(handler, functools.partial) else handler  # pyright: ignore
    return inner is signal.default_int_handler or getattr(inner, "__qualname__", "") == "Runner._on_sigint"
