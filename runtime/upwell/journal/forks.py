"""Forks wait until no SQLite file is at work here: a child gets the locks inside of SQLite as they are, for ever."""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import Final
from weakref import WeakSet

MOST_SECONDS: Final = 0.5
"""How long a fork waits; what is at work for longer waits itself, most likely, and holds nothing."""

_locks: Final[WeakSet[threading.Lock]] = WeakSet()
_adding: Final = threading.Lock()
_held: Final[list[threading.Lock]] = []  # while a fork is under way


def no_fork_while_held() -> threading.Lock:
    """A lock to hold while a connection is at work, from the beginning of a transaction to its end."""
    lock = threading.Lock()
    with _adding:
        _locks.add(lock)
    return lock


def _before() -> None:
    _adding.acquire()
    until = monotonic() + MOST_SECONDS
    _held.extend(lock for lock in _locks if lock.acquire(timeout=max(0.0, until - monotonic())))


def _after() -> None:
    while _held:
        _held.pop().release()
    _adding.release()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
