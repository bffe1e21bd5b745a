"""What follows when an attempt at a run has ended: another attempt, or a final state.

This is the one place that decides it; the inline, the loop and the remote driver all ask here.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from msgspec import Struct

from upwell.core.states import CANCELLED, COMPLETED, CRASHED, FAILED, StateType


class OutcomeKind(Enum):
    """The closed set of ways in which an attempt can end."""

    RETURNED = "returned"
    RAISED = "raised"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


RETURNED: Final = OutcomeKind.RETURNED
RAISED: Final = OutcomeKind.RAISED
TIMED_OUT: Final = OutcomeKind.TIMED_OUT
WAS_CANCELLED: Final = OutcomeKind.CANCELLED
HAS_CRASHED: Final = OutcomeKind.CRASHED

CANCELLED_UNSAID: Final = "Its coroutine was cancelled, by its own code or with the event loop around it."
"""The reason where nobody has given one."""

PROGRAM_HAS_ENDED: Final = "The program has ended, and nobody waited for what it had started."


class Outcome(Struct):
    """How one attempt ended.

    value: what it returned, or the exception that says why it did not.
    message: why, for a person; empty means that the exception says it.
    started, ended: seconds since the epoch, where the runner knows better than the engine; else 0.
    """

    kind: OutcomeKind
    value: Any = None
    message: str = ""
    started: float = 0.0
    ended: float = 0.0


class Finish(Struct, frozen=True):
    """The run is over, in this state."""

    type: StateType
    name: str | None = None
    message: str | None = None


def final_state(outcome: Outcome, kind_of_run: str) -> Finish:
    """The final state that an outcome leads to when no attempt is left.

    kind_of_run: "Task run" or "Flow run", for the message.
    """
    match outcome.kind:
        case OutcomeKind.RETURNED:
            return _COMPLETED
        case OutcomeKind.RAISED:
            message = outcome.message or f"{kind_of_run} encountered an exception: {describe(outcome.value)}"
            return Finish(FAILED, None, message)
        case OutcomeKind.TIMED_OUT:
            return Finish(FAILED, "TimedOut", outcome.message or str(outcome.value))
        case OutcomeKind.CANCELLED:
            return Finish(CANCELLED, None, outcome.message or "Cancelled, and nothing says why.")
        case OutcomeKind.CRASHED:
            return Finish(CRASHED, None, outcome.message or f"Execution was aborted: {describe(outcome.value)}")


_COMPLETED: Final = Finish(COMPLETED)

RETRIABLE: Final = frozenset({OutcomeKind.RAISED, OutcomeKind.TIMED_OUT, OutcomeKind.CRASHED})
"""A cancelled run is not tried again; a crashed one is, for its worker's death is no fault of its own."""


def may_retry(outcome: Outcome, attempts: int, retries: int) -> bool:
    """Whether an attempt is left; a `retry_condition_fn` may still say no.

    attempts: how many have been made, the one that just ended included.
    """
    return attempts <= retries and outcome.kind in RETRIABLE and isinstance(outcome.value, Exception)


def safe_repr(error: object) -> str:
    """The repr of an exception, even where its own `__repr__` raises."""
    try:
        return repr(error)
    except Exception:
        return f"<{type(error).__name__}: its __repr__ raises>"


def describe(error: BaseException) -> str:
    """An exception in one line: `ValueError: boom`, safe even where its own `__str__` raises."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be shown: its __str__ raises)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
