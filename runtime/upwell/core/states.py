"""The states of a run: their types, their names, the table of legal moves, and the record of one state.

A run is in one state at a time. A state has a *type*, one of a closed set on which all logic rests, and a
*name*, which says more to a person (`TimedOut` is a `FAILED`). Moves are a table; a terminal state is never
left. Every state that is not running carries a message that says why.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from upwell.core.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    NotReadyRun,
    PausedRun,
    UnfinishedRun,
)
from upwell.core.results import StoredValue


class StateType(StrEnum):
    """What a run is doing, for the machine."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"


SCHEDULED: Final = StateType.SCHEDULED
PENDING: Final = StateType.PENDING
RUNNING: Final = StateType.RUNNING
COMPLETED: Final = StateType.COMPLETED
FAILED: Final = StateType.FAILED
CANCELLING: Final = StateType.CANCELLING
CANCELLED: Final = StateType.CANCELLED
CRASHED: Final = StateType.CRASHED
PAUSED: Final = StateType.PAUSED

TERMINAL: Final = frozenset({COMPLETED, FAILED, CANCELLED, CRASHED})

NOT_READY: Final = "NotReady"

NAMES: Final = (
    "AwaitingConcurrencySlot", "AwaitingResume", "AwaitingRetry", "Cached", "Late", NOT_READY, "Retrying", "RolledBack",
    "Skipped", "Suspended", "TimedOut",
)  # fmt: skip  # a list of names
"""Those that states have here besides that of their type."""

MOVES: Final[dict[StateType, frozenset[StateType]]] = {
    SCHEDULED: frozenset({SCHEDULED, PENDING, RUNNING, FAILED, CANCELLING, CANCELLED, CRASHED, PAUSED}),
    PENDING: frozenset({SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED, CRASHED, PAUSED}),
    RUNNING: frozenset({SCHEDULED, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED, CRASHED, PAUSED}),
    PAUSED: frozenset({SCHEDULED, PENDING, RUNNING, FAILED, CANCELLING, CANCELLED, CRASHED}),
    CANCELLING: frozenset({COMPLETED, FAILED, CANCELLED, CRASHED}),
    COMPLETED: frozenset(),
    FAILED: frozenset(),
    CANCELLED: frozenset(),
    CRASHED: frozenset(),
}
"""Which type of state may follow which. PENDING may complete without running: its result was cached."""


def may_move(current: StateType, new: StateType) -> bool:
    """Whether a run in a state of type `current` may enter one of type `new`."""
    return new in MOVES[current]


class State(Struct, frozen=True, kw_only=True, eq=False):
    """One state of one run. `data` is the run's value once it completed, its exception once it failed."""

    type: StateType
    name: str = ""
    timestamp: dt.datetime = dt.datetime.fromtimestamp(0, dt.UTC)
    message: str | None = None
    data: Any = None
    scheduled_time: dt.datetime | None = None

    def is_scheduled(self) -> bool:
        return self.type is SCHEDULED

    def is_pending(self) -> bool:
        return self.type is PENDING

    def is_running(self) -> bool:
        return self.type is RUNNING

    def is_completed(self) -> bool:
        return self.type is COMPLETED

    def is_failed(self) -> bool:
        return self.type is FAILED

    def is_crashed(self) -> bool:
        return self.type is CRASHED

    def is_cancelled(self) -> bool:
        return self.type is CANCELLED

    def is_cancelling(self) -> bool:
        return self.type is CANCELLING

    def is_paused(self) -> bool:
        return self.type is PAUSED

    def is_not_ready(self) -> bool:
        """Whether the run will never begin, because another that it depends on did not complete."""
        return self.type is PENDING and self.name == NOT_READY

    def is_final(self) -> bool:
        """Whether the run has ended: nothing will ever follow this state."""
        return self.type in TERMINAL or self.is_not_ready()

    def result(self, raise_on_failure: bool = True) -> Any:
        """The value of a completed run.

        Raises:
            the run's own exception, or FailedRun, CrashedRun, CancelledRun, PausedRun or UnfinishedRun where
            there is none. With `raise_on_failure=False` that exception is returned instead.
        """
        if self.type is COMPLETED:
            return self.data.read() if type(self.data) is StoredValue else self.data
        error = self.exception()
        if raise_on_failure:
            raise error
        return error

    def exception(self) -> BaseException:
        """The exception that stands for this state; for a state that is not a completed one."""
        if isinstance(self.data, BaseException):
            return self.data
        if self.is_not_ready():
            return NotReadyRun(self.message or "Another run that this one depends on did not complete.")
        return _STANDS_FOR.get(self.type, UnfinishedRun)(self.message or f"The run is {self.name}, it has no result.")

    def __str__(self) -> str:
        details = [repr(self.message)] if self.message else []
        if self.name.upper() != self.type.value:
            details.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(details)})"

    def __repr__(self) -> str:
        data = f", result={self.data!r}" if self.type is COMPLETED else ""
        return f"{self.name}(message={self.message!r}, type={self.type.value}{data})"


_STANDS_FOR: Final[dict[StateType, type[Exception]]] = {
    FAILED: FailedRun,
    CRASHED: CrashedRun,
    CANCELLED: CancelledRun,
    CANCELLING: CancelledRun,
    PAUSED: PausedRun,
}
