"""Which clock the engine reads; a test replaces it."""

from __future__ import annotations

import datetime as dt
import time as system

from upwell.core.seams import Clock


class SystemClock:
    """The machine's own clock."""

    time = staticmethod(system.time)
    sleep = staticmethod(system.sleep)


_current: Clock = SystemClock()


def clock() -> Clock:
    """The clock in use."""
    return _current


def use_clock(replacement: Clock) -> Clock:
    """Use this clock from now on; returns the one that was in use."""
    global _current
    previous, _current = _current, replacement
    return previous


def moment(seconds: float) -> dt.datetime:
    """Seconds since the epoch as an aware datetime."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
