"""What a piece of code leaves behind: asyncio tasks, threads, processes, open files, signal handlers, slots."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver, resource_tracker
from typing import Any, Final

from upwell.composition import close_journal
from upwell.engine.clock import SystemClock
from upwell.engine.current import close_portal
from upwell.engine.limits import PROCESS_LIMITS
from upwell.testing.waiting import describe_task, pending_tasks

PATIENCE_SECONDS: Final = 2.0
"""How long what has been told to end may take to do so."""

_ALWAYS_THERE: Final = ("/dev/null", "/dev/urandom", "/proc/")
"""Files that the interpreter and the operating system's libraries open on their own behalf."""


_ALARM_AT_REST: Final = (getattr(signal, "SIGALRM", None), signal.SIG_DFL)
"""pytest-timeout puts its own handler away as soon as a test has failed."""


class LeakError(AssertionError):
    """Something was left behind; says what."""


@contextmanager
def no_leaks(*, patience_seconds: float = PATIENCE_SECONDS) -> Generator[None]:
    """Fail if the code inside leaves behind what was not there before.

    That is: unfinished asyncio tasks, non-daemon threads, child processes, open files and sockets (on Linux),
    changed signal handlers, slots of the process's limits that nobody gave back. The loop that upwell runs
    beside sync code is no leak, nor are its workers, nor is the journal: they are closed if that explains what is left.

    Raises:
        LeakError: says what was left; not if the code itself raised.
    """
    _open_what_stays()
    before = _Look()
    yield
    if before.left_behind():
        close_portal()
        close_journal()
        gc.collect()
        until = time.monotonic() + patience_seconds
        while (found := before.left_behind()) and time.monotonic() < until:
            time.sleep(0.01)
        if found:
            raise LeakError("Left behind:\n" + "\n".join(f"- {line}" for line in found))


@cache
def _open_what_stays() -> None:
    """The first event loop of a process may open files that the process keeps (uvloop's do): have that behind us."""
    SystemClock().new_loop().close()


class _Look:
    """What there is now of all that can leak."""

    def __init__(self) -> None:
        self.tasks = pending_tasks()
        self.threads = _threads()
        self.children = _children()
        self.files = _open_files()
        self.handlers = _signal_handlers()
        self.slots = _slots_taken()

    def left_behind(self) -> list[str]:
        """What is there now and was not then, a line each."""
        now = _Look()
        described = (describe_task(task) for task in now.tasks - self.tasks)
        found = [f"unfinished: {line}" for line in described if line is not None]
        found += [f"thread {thread.name!r} is running" for thread in now.threads - self.threads]
        found += [f"child process {child}" for child in now.children - self.children]
        found += [f"open file {number}: {target}" for number, target in now.files - self.files]
        found += [
            f"signal {signal.Signals(number).name} is handled by {handler!r}, before by {self.handlers.get(number)!r}"
            for number, handler in now.handlers.items()
            if handler != self.handlers.get(number) and (number, handler) != _ALARM_AT_REST
        ]
        found += [
            f"limit {name!r} has {taken} slot(s) taken, before {self.slots.get(name, 0)}"
            for name, taken in now.slots.items()
            if taken > self.slots.get(name, 0)
        ]
        return found


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


def _children() -> set[int]:
    """Child processes by id, but for those that multiprocessing keeps for the life of this process."""
    found = {child.pid for child in multiprocessing.active_children() if child.pid is not None}
    for thread in _listed("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as listed:
                found.update(map(int, listed.read().split()))
        except OSError:  # the thread has ended, or the kernel does not tell
            continue
    return found - {
        _kept(resource_tracker, "_resource_tracker", "_pid"),
        _kept(forkserver, "_forkserver", "_forkserver_pid"),
    }


def _open_files() -> set[tuple[int, str]]:
    kept = {
        _kept(resource_tracker, "_resource_tracker", "_fd"),
        _kept(forkserver, "_forkserver", "_forkserver_alive_fd"),
    }
    found: set[tuple[int, str]] = set()
    for number in map(int, _listed("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one that was open for listing
            continue
        if number not in kept and not target.startswith(_ALWAYS_THERE):
            found.add((number, target))
    return found


def _listed(folder: str) -> list[str]:
    return os.listdir(folder) if sys.platform == "linux" else []


def _kept(module: Any, keeper: str, attribute: str) -> Any:
    return getattr(getattr(module, keeper, None), attribute, None)


def _signal_handlers() -> dict[int, Any]:
    return {int(number): signal.getsignal(number) for number in signal.valid_signals()}


def _slots_taken() -> dict[str, int]:
    return {limit.name: limit.taken for limit in PROCESS_LIMITS if not limit.slot_decay_per_second}


__all__ = ["LeakError", "no_leaks"]
