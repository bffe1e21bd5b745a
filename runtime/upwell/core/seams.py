"""The seams: what a task runner or a clock must offer to be used by the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from typing import Any, Protocol

from upwell.core.lifecycle import Outcome, OutcomeKind


class Attempt(Protocol):
    """One try at one task run, as a task runner sees it."""

    @property
    def name(self) -> str:
        """The task run's name."""
        ...

    @property
    def fn(self) -> Callable[..., Any]:
        """The user's function, as it was decorated."""
        ...

    @property
    def args(self) -> tuple[Any, ...]:
        """Its positional arguments, futures resolved."""
        ...

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Its keyword arguments, futures resolved."""
        ...

    @property
    def timeout_seconds(self) -> float | None:
        """How long the attempt may take."""
        ...

    @property
    def group(self) -> object:
        """The same object for attempts that share their function and options, such as those of one map."""
        ...

    @property
    def logs_prints(self) -> bool:
        """Whether what it prints belongs to its log."""
        ...

    def new_context(self) -> Context:
        """A context of this attempt's own, inherited from the submitter's."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What the run is called and belongs to, as plain values that can cross to another process."""
        ...


class RunnerHost(Protocol):
    """What the engine offers to a task runner. Every method may be called from any thread."""

    def execute(self, attempt: Attempt) -> Outcome:
        """Run the function here, in this thread, in the run's own context; never raises."""
        ...

    def started(self, attempt: Attempt) -> None:
        """The attempt has begun now; starts its clock. Needed only for attempts with a timeout."""

    def finished(self, attempt: Attempt, outcome: Outcome) -> None:
        """The attempt has ended so. A second report for the same attempt is ignored."""

    def finished_many(self, outcomes: Sequence[tuple[Attempt, Outcome]]) -> None:
        """The same for many at once, at the price of one wake-up."""

    def returned_many(self, attempts: Sequence[Attempt], values: Sequence[Any], times: Sequence[float]) -> None:
        """The same for attempts that followed each other and have all returned: the quickest way.

        times: when the first began, then when each ended.
        """

    def only_arguments(self, attempts: Sequence[Attempt]) -> list[Any] | None:
        """The argument of each, where all are of one group and have no other; None: look at each."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call this on the loop's thread."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call this on the loop's thread after so many seconds."""

    def cancel_coroutine(self, attempt: Attempt) -> bool:
        """Cancel the coroutine that `execute` runs for this attempt in a worker's thread; False if it runs none."""
        ...

    def emit_log(self, attempt: Attempt, level: int, message: str, logger: str, timestamp: float) -> None:
        """A log record or a printed line that an attempt made elsewhere."""


class TaskRunner(Protocol):
    """Executes attempts somewhere. All methods are called on the loop's thread and return at once.

    A runner is opened once by the runtime that uses it, then given attempts in batches, and closed once.
    It reports every attempt that it was given, exactly once, through `host.finished`, whatever happens.
    """

    coroutines_on_loop: bool
    """True: coroutine functions stay on the runtime's loop, and only sync functions come to this runner."""

    max_at_once: int | None
    """How many attempts the engine hands over before one has ended; None: as many as there are."""

    def open(self, host: RunnerHost) -> None:
        """Get ready; cheap: workers start when they are first needed."""

    def start(self, attempts: Sequence[Attempt]) -> None:
        """Execute these, in this order where there is a choice."""

    def interrupt(self, attempt: Attempt, kind: OutcomeKind, error: BaseException) -> None:
        """End this attempt now, with an outcome of this kind and this error (TIMED_OUT or CANCELLED).

        Within a grace period: a runner that cannot stop the code abandons it and reports all the same.
        """

    def blocked(self, attempt: Attempt) -> None:
        """The attempt waits for another run from inside a worker of this runner: its place is free to use.

        Called in the worker's own thread.
        """

    def unblocked(self, attempt: Attempt) -> None:
        """The wait that `blocked` announced is over. Called in the worker's own thread."""

    async def close(self) -> None:
        """Release all workers; called when no attempt is under way, and it may be called twice."""


class Lock(Protocol):
    """A `threading.Lock`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def locked(self) -> bool: ...


class Clock(Protocol):
    """Wall time in seconds, and all that blocks a thread; a test's clock jumps instead."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Block this thread."""

    def wait(self, lock: Lock, seconds: float | None = None) -> bool:
        """Block this thread until it has the lock, for at most so many seconds; whether it has."""
        ...

    def interrupting(self, seconds: float, kind: type[BaseException]) -> AbstractContextManager[None] | None:
        """Raise this in the code inside once so many seconds have passed; None: machine time decides that."""
        ...

    def new_loop(self) -> Any:
        """A new event loop that goes by this clock."""
        ...
