"""States as users make and meet them: constructors with Prefect's names, and the exceptions that they stand for."""

from __future__ import annotations

import datetime as dt
from typing import Any

from upwell.core.states import MOVES, TERMINAL, State, StateType, may_move
from upwell.engine.clock import clock, moment


def _state(type_: StateType, name: str, message: str | None, data: Any, at: dt.datetime | None = None) -> State:
    return State(type=type_, name=name, timestamp=moment(clock().time()), message=message, data=data, scheduled_time=at)


def Scheduled(  # constructors are named like the states they make
    scheduled_time: dt.datetime | None = None,
    message: str | None = None,
    data: Any = None,
    name: str = "Scheduled",
) -> State:
    """To start at `scheduled_time`, now unless said."""
    return _state(StateType.SCHEDULED, name, message, data, scheduled_time or moment(clock().time()))


def Late(scheduled_time: dt.datetime | None = None, message: str | None = None) -> State:
    """Should have started at `scheduled_time`."""
    return Scheduled(scheduled_time, message, name="Late")


def AwaitingRetry(scheduled_time: dt.datetime | None = None, message: str | None = None) -> State:
    """Failed, and will be tried again at `scheduled_time`."""
    return Scheduled(scheduled_time, message, name="AwaitingRetry")


def AwaitingConcurrencySlot(scheduled_time: dt.datetime | None = None, message: str | None = None) -> State:
    """Waits for a slot of a limit."""
    return Scheduled(scheduled_time, message, name="AwaitingConcurrencySlot")


def Pending(message: str | None = None, data: Any = None, name: str = "Pending") -> State:
    """About to start."""
    return _state(StateType.PENDING, name, message, data)


def Running(message: str | None = None, data: Any = None, name: str = "Running") -> State:
    """Its code runs."""
    return _state(StateType.RUNNING, name, message, data)


def Retrying(message: str | None = None, data: Any = None) -> State:
    """Its code runs again."""
    return Running(message, data, "Retrying")


def Completed(message: str | None = None, data: Any = None, name: str = "Completed") -> State:
    """Ended well; `data` is the result."""
    return _state(StateType.COMPLETED, name, message, data)


def Failed(message: str | None = None, data: Any = None, name: str = "Failed") -> State:
    """Ended badly; `data` is the exception, if there is one."""
    return _state(StateType.FAILED, name, message, data)


def Crashed(message: str | None = None, data: Any = None, name: str = "Crashed") -> State:
    """What executed it went away."""
    return _state(StateType.CRASHED, name, message, data)


def Cancelling(message: str | None = None, data: Any = None, name: str = "Cancelling") -> State:
    """Is being cancelled."""
    return _state(StateType.CANCELLING, name, message, data)


def Cancelled(message: str | None = None, data: Any = None, name: str = "Cancelled") -> State:
    """Was cancelled."""
    return _state(StateType.CANCELLED, name, message, data)


def Paused(message: str | None = None, data: Any = None, name: str = "Paused") -> State:
    """Waits for somebody to let it go on."""
    return _state(StateType.PAUSED, name, message, data)


def Suspended(message: str | None = None, data: Any = None) -> State:
    """Paused, with nothing kept running meanwhile."""
    return Paused(message, data, "Suspended")


def raise_state_exception(state: State) -> None:
    """Raise the exception that a state stands for; a completed one stands for none."""
    if not state.is_completed():
        raise state.exception()


def get_state_exception(state: State) -> BaseException:
    """The exception that a state stands for.

    Raises:
        ValueError: the state is a completed one.
    """
    if state.is_completed():
        raise ValueError(f"{state} stands for no exception.")
    return state.exception()


__all__ = [
    "MOVES",
    "TERMINAL",
    "AwaitingConcurrencySlot",
    "AwaitingRetry",
    "Cancelled",
    "Cancelling",
    "Completed",
    "Crashed",
    "Failed",
    "Late",
    "Paused",
    "Pending",
    "Retrying",
    "Running",
    "Scheduled",
    "State",
    "StateType",
    "Suspended",
    "get_state_exception",
    "may_move",
    "raise_state_exception",
]
