"""How runs join the transaction around them: what they have is staged there, and committed with it."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final, Protocol

from upwell.core.results import ResultRecord
from upwell.core.states import COMPLETED
from upwell.engine.caching import Computation, Run, keep_in_cache
from upwell.engine.future import CURRENT_RUN
from upwell.engine.steps import Life


class TransactionSeam(Protocol):
    """What the engine needs of a transaction."""

    @property
    def root(self) -> Any:
        """The outermost one around."""
        ...

    def joined(self, runs: Sequence[Run]) -> None:
        """These were started inside: it does not end before they have."""
        ...

    def stage_run(self, run: Run, computation: Computation | None, record: ResultRecord | None) -> Life[Any] | None:
        """A run that was started inside has completed; answers with what is to be done at once, if anything."""
        ...

    def run_failed(self, run: Run) -> None:
        """A run that was started inside did not complete: what it has staged itself does not count."""
        ...


CURRENT_TRANSACTION: Final[ContextVar[Any]] = ContextVar("upwell_transaction", default=None)
"""The innermost transaction that was opened around here; None if there is none."""


def current_transaction() -> Any:
    """The innermost transaction here; inside of a task run, the run's own."""
    around = CURRENT_TRANSACTION.get()
    run = CURRENT_RUN.get()
    if around is None or run is None:
        return around
    at = outer = run.call.transaction
    while at is not None:
        if at is around:  # it was opened outside of the run
            return outer.of_run(run)
        at = at.parent
    return around


class _NothingKept:
    """For runs whose results are not stored, and that are to be told of to a transaction."""

    persists = caches = refresh = is_local = is_exclusive = False
    in_memory = is_inline = True
    expiration: float | None = None
    known: set[str] | None = None
    results: Any = None

    def key_of(self, run: Run) -> str | None:
        return None

    def keys_of(self, runs: Sequence[Run]) -> list[str] | None:
        return None

    def location_of(self, run: Run) -> str | None:
        return None


NOTHING_KEPT: Final = _NothingKept()

OpenForRun = Callable[[Run], Any]
_open: OpenForRun | None = None


def open_with(opener: OpenForRun) -> None:
    """Say how a run with hooks, and no transaction around it, gets one of its own; the public face does."""
    global _open
    _open = opener


def stage(run: Run, computation: Computation | None, record: ResultRecord | None) -> Life[None] | None:
    """What a run has is to be found by others: now, or when the transaction around it is committed.

    Answers with what is still to be done then: the hooks of a run that has no transaction around it.
    """
    around: TransactionSeam | None = run.call.transaction
    if around is not None:
        if computation is not None and record is not None:
            computation.cache.stage(computation, record, around.root)
        return around.stage_run(run, computation, record)
    if computation is not None and record is not None:
        keep_in_cache(run, computation, record)
    if run.call.definition.commit_hooks and _open is not None:
        return _open(run)  # type: ignore[no-any-return]  # the public face's own
    return None


def failed(run: Run, computation: Computation | None) -> None:
    """A run has nothing that others could find."""
    if computation is not None:
        computation.cache.give_up(computation)
    if run.call.transaction is not None:
        run.call.transaction.run_failed(run)


def mark_rolled_back(run: Run) -> None:
    """The transaction of a run that has ended was rolled back; one that did not complete keeps its state."""
    if run.status != COMPLETED or run.state_name == "RolledBack":
        return
    run.state_name, run.message = "RolledBack", "Its transaction was rolled back."
    recorder = run.call.scope.recorder
    if recorder is not None:
        recorder.rolled_back.append(run)
        recorder.wake()
        if run.call.scope.is_strict:
            recorder.strict.note()  # else it would be taken for completed, as its end was
