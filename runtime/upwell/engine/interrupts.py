"""Interrupting code that does not yield: timeouts of sync code, and Ctrl-C.

A sync function on the main thread is interrupted by a signal, which even cuts `time.sleep` short. On another
thread an exception is raised at its next bytecode; code inside a C call notices only after the call.
"""

from __future__ import annotations

import _weakrefset
import asyncio
import functools
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, Final

from upwell.core.lifecycle import describe
from upwell.engine.clock import INTERRUPTIBLE, clock

_behind_signal: Final[Any] = import_module("_signal")  # typed nowhere
_handler_of: Final[Callable[[int], Any]] = _behind_signal.getsignal
_set_handler: Final[Callable[[int, Any], Any]] = _behind_signal.signal
"""What `signal` has of the same names tries to make an enum of the handler: for asyncio's own, with the text of its
Task, that takes 10 us each time, and all together a third of a flow run's life.
"""

INTERRUPTED_BY_CTRL_C: Final = "Interrupted by Ctrl-C."
KILLED_BY_CTRL_C: Final = 130  # what a shell reports for a program that SIGINT ended


class Interrupted(BaseException):
    """Raised inside the user's code when its time is up, or it is cancelled; never seen by users.

    why: what to say of runs in that code that are not what was interrupted: they are cancelled with it.
    """

    why = "The run around it exceeded its timeout."

    def __str__(self) -> str:
        return self.why

    @staticmethod
    def means() -> BaseException | None:
        """What is to be raised in its place, if another thread has raised it."""
        return None


def cancelled_because(reason: str) -> type[Interrupted]:
    """What to raise in code that is cancelled for this reason."""
    return type("Interrupted", (Interrupted,), {"why": reason})


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
        _handler_of(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN, None, _on_alarm)
    )


_OUR_CODE: Final = frozenset(it.__code__.co_filename for it in (_alarm_is_free, contextmanager))
"""Before and after the user's code: what is raised there passes by those who know what it means."""

_RUN_OF_HANDLE: Final = asyncio.Handle._run.__code__  # pyright: ignore[reportPrivateUsage]

SOON_SECONDS: Final = 0.001
"""When an interrupt comes that would have come there."""

AGAIN_SECONDS: Final = 0.1
"""The alarm rings until it is heard: after a stop (Ctrl-Z) the system may give it to a thread that is not the main one,
and what the main one waits for goes on.
"""

_ends: Final[list[float]] = []
"""When the alarm is to ring for each run of the main thread, from the outermost on: for none later than around it."""


_uninterrupted: Final[set[int]] = set()
"""Threads that are not to be interrupted now."""


@contextmanager
def uninterrupted() -> Generator[None, None, None]:
    """An interrupt that would hit inside comes a moment later."""
    thread_id = threading.get_ident()
    if thread_id in _uninterrupted:  # by code around this
        yield
        return
    _uninterrupted.add(thread_id)
    try:
        yield
    finally:
        _uninterrupted.discard(thread_id)


def _is_between(frame: FrameType | None, thread_id: int | None = None) -> bool:
    if frame is None:
        return False
    return frame.f_code.co_filename in _OUR_CODE or thread_id in _uninterrupted or _would_be_lost(frame)


def _would_be_lost(frame: FrameType) -> bool:
    """Whether Python, or a loop of asyncio's, only logs what is raised here, and goes on."""
    at: FrameType | None = frame
    called: FrameType | None = None
    while at is not None:
        if at.f_code.co_name == "__del__" or at.f_code.co_filename == _weakrefset.__file__:
            return True
        if at.f_code is _RUN_OF_HANDLE and (called is None or not called.f_code.co_flags & inspect.CO_COROUTINE):
            return True  # a callback; a Task's coroutine would get it, and whoever awaits that
        called, at = at, at.f_back
    return False


def _on_alarm(_signal: int, frame: FrameType | None) -> None:
    if not _ends:
        return  # the run has ended just now
    if _is_between(frame, threading.get_ident()):
        signal.setitimer(signal.ITIMER_REAL, SOON_SECONDS, AGAIN_SECONDS)
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise Interrupted


@contextmanager
def _by_alarm(seconds: float, error: Callable[[], BaseException]) -> Generator[None, None, None]:
    previous = _set_handler(signal.SIGALRM, _on_alarm)
    end = time.monotonic() + seconds
    is_first = not _ends or end < _ends[-1]
    _ends.append(end if is_first else _ends[-1])
    _set_alarm()
    try:
        yield
    except Interrupted:
        if not is_first:
            raise  # it was for a run around this one
        raise error() from None
    finally:
        _ends.pop()
        _set_alarm()
        _set_handler(signal.SIGALRM, previous)


def _set_alarm() -> None:
    if _ends:
        signal.setitimer(signal.ITIMER_REAL, max(_ends[-1] - time.monotonic(), 1e-6), AGAIN_SECONDS)
    else:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _by_watchdog(seconds: float, error: Callable[[], BaseException]) -> Generator[None, None, None]:
    thread_id = threading.get_ident()
    kind: type[Interrupted] = type(
        "Interrupted", (Interrupted,), {"means": staticmethod(error)}
    )  # timeouts may be nested
    lock = threading.Lock()
    over = fired = False

    def fire() -> None:
        nonlocal fired
        import ctypes  # noqa: F401  # pyright: ignore[reportUnusedImport]  # it takes long: before the look at the thread

        with lock:
            if over:
                return
            frame = sys._current_frames().get(thread_id)  # pyright: ignore[reportPrivateUsage]  # documented
            if _is_between(frame, thread_id):
                watch(SOON_SECONDS)
                return
            fired = True
            raise_in_thread(thread_id, kind)

    def watch(seconds: float) -> None:
        watchdog = threading.Timer(seconds, fire)
        watchdog.daemon = True
        watchdogs.append(watchdog)
        watchdog.start()

    watchdogs: list[threading.Timer] = []
    INTERRUPTIBLE.depth = getattr(INTERRUPTIBLE, "depth", 0) + 1
    try:
        try:
            watch(seconds)
            yield
        finally:
            INTERRUPTIBLE.depth -= 1
            with lock:
                over = True
            for watchdog in watchdogs:
                watchdog.cancel()
    except kind:
        raise error() from None
    if fired:  # it came too late to hit anything inside: take it back, and say what is true
        clear_raise_in_thread(thread_id)
        raise error()


def why_interrupted(error: KeyboardInterrupt) -> str:
    """What to say of code that it was raised in."""
    if isinstance(error, Stopped):
        return str(error)
    return describe(error) if error.args else INTERRUPTED_BY_CTRL_C


def may_be_interrupted() -> bool:
    """Whether the code of this thread has a timeout."""
    is_main = threading.current_thread() is threading.main_thread()
    return bool(_ends and is_main) or getattr(INTERRUPTIBLE, "depth", 0) > 0


def meant_by(error: BaseException) -> BaseException:
    """What was caught around code with a timeout: another thread's interrupt may hit just as that code is left."""
    if not isinstance(error, Interrupted):
        return error
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (trace is not None and _is_between(trace.tb_frame) and error.means()) or error


# --- Ctrl-C -----------------------------------------------------------------------------------------------

_asked: list[Callable[[], BaseException | None]] = []
"""Why the main thread is to be interrupted, where it is not by a key."""

_bell: tuple[int, Any] | None = None
"""The signal that interrupts the main thread of a flow run, and our handler of it."""

SPARE_BELL: Final[int | None] = getattr(signal, "SIGURG", None)
"""The bell where Ctrl-C is not ours: the application's own, or ignored, as in what a script has started with `&`.
By default it does nothing, so it harms no child process.
"""

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
    global _presses, _bell
    bell = _free_bell() if threading.current_thread() is threading.main_thread() else None
    if bell is None:
        yield
        return
    number, previous = bell
    _presses = 0

    def on_ctrl_c(number: int, frame: FrameType | None) -> None:
        global _presses, _pressed_at
        if _asked:
            if (error := _asked.pop(0)()) is not None:
                raise error
            return
        if number == SPARE_BELL:
            return
        now = time.monotonic()
        if _presses and now - _pressed_at < ONE_PRESS_SECONDS:
            return
        _presses, _pressed_at = _presses + 1, now
        if _presses > 1:
            kill_now()
        sys.stderr.write("\nCtrl-C: cancelling what runs. Press Ctrl-C again to kill.\n")
        previous(number, frame)

    _bell = number, on_ctrl_c
    _set_handler(number, on_ctrl_c)
    try:
        yield
    finally:
        _asked.clear()
        if _handler_of(number) is on_ctrl_c:
            _set_handler(number, signal.default_int_handler if _is_over(previous) else previous)


def _free_bell() -> tuple[int, Any] | None:
    """A signal that nobody else uses, and who handles it now."""
    if _is_a_default(handler := _handler_of(signal.SIGINT)):
        return signal.SIGINT, handler
    if SPARE_BELL is not None and (handler := _handler_of(SPARE_BELL)) == signal.SIG_DFL:
        return SPARE_BELL, handler
    return None


def interrupt_main_thread(why: Callable[[], BaseException | None]) -> bool:
    """Interrupt what the main thread does, even a sleep, from another thread; whether that is possible.

    why: called in the main thread; what it is to raise, or None if that is of no use any more.
    """
    if _bell is None or _handler_of(_bell[0]) is not _bell[1] or not hasattr(signal, "pthread_kill"):
        return False
    _asked.append(why)
    signal.pthread_kill(threading.main_thread().ident or 0, _bell[0])
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
