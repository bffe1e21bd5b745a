"""A scope owns the runs that one flow run (or one runtime, outside flows) has started: it counts them, waits
for them and cancels them. Nothing that is started in a scope outlives it.

Every member is touched on the loop's thread only, but for `series_of` and `Series.numbers`, which number
runs wherever they are submitted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import cached_property
from itertools import count as counting
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

from upwell.core.definition import Definition
from upwell.core.errors import RuntimeClosedError
from upwell.core.ids import RANDOM_BITS
from upwell.core.quick import quickly_set
from upwell.core.states import RUNNING
from upwell.engine.chance import random_bits
from upwell.engine.clock import clock
from upwell.engine.elsewhere import ELSEWHERE
from upwell.engine.recorder import Recorder

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


MOST_SERIES: Final = 10_000
"""How many tasks a scope numbers; beyond that the oldest begin again at 0."""

MOST_NAMES: Final = 5
"""How many runs a message names before it only counts them."""


class OpenRun(Protocol):
    """What a scope needs to know of a run that it owns."""

    done: bool
    looked: bool

    status: str

    @property
    def name(self) -> str: ...

    def exception(self) -> BaseException: ...


class OpenStream(Protocol):
    """What a scope needs to know of a stream that is taken from in it."""

    def end(self, reason: str) -> None:
        """Nobody may take from it any more; on the loop's thread."""


class EngineSeam:
    """What scopes and futures need of the engine that drives them; the engine is one."""

    loop: asyncio.AbstractEventLoop
    closed: bool

    def on_loop_thread(self) -> bool:
        """Whether the caller is on the thread of the engine's own loop."""
        raise NotImplementedError

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call this on the loop's thread, after everything posted before; from any thread."""

    def perform(self, callback: Callable[[], None]) -> None:
        """Call this on the loop's thread: now, if this is it; from any thread."""

    def accept(self, runs: Sequence[Any]) -> None:
        """Start whole runs of one call, just submitted; from any thread."""

    def accept_one(self, run: Any) -> None:
        """The same for the only run of a call."""

    def scope_is_empty(self, scope: Scope) -> None:
        """Nothing that was started in this scope is under way any more."""

    def open_call(self, call: Any) -> None:
        """A call whose runs come bit by bit: it stays open until `close_call`."""

    def close_call(self, call: Any) -> None:
        """No more runs of this call will come."""

    def upstream_ended(self, run: Any) -> None:
        """One of the runs that this one waits for has ended."""

    def upstream_completed(self, run: Any, item: Any) -> None:
        """All that this run waits for has ended well. item: its arguments, with the results in their place."""

    def help(self, run: Any) -> None:
        """Somebody on the engine's loop is about to wait for this run: do it at once, if it is ready."""

    def step_aside(self, run: Any, target: Any) -> AbstractContextManager[None]:
        """While a worker thread waits: the run that waits gives its slots and its thread back."""
        raise NotImplementedError

    async def step_aside_until(self, run: Any, waiter: asyncio.Future[None], target: Any) -> None:
        """The same for a wait on the loop."""

    def stop_run(self, run: Any, reason: str) -> None:
        """Cancel one run, wherever it is."""


@quickly_set
class Series(Struct, gc=False, eq=False):
    """The runs of one task in one scope: their numbers, the random part of their ids, and how they are run.

    It refers to no run, and its scope drops it when it ends, so it cannot be part of a cycle that lasts.

    numbers: counts its runs; each `next` is one step under the interpreter's lock, so any thread may number.
    route: how its runs are executed, decided when the first is submitted.
    submitted: how many runs there are, begun or not.
    journal_key, journal_submitted: the journal's own: what it knows the series by, and what it has written.
    source: a digest of the task's code, in durable flow runs.
    keeping: what is to be done about results; None: nothing; False: nobody has asked yet.
    usual, usual_unary: a Call of nobody's, to be copied for a submit; see `submit.single_call`.
    """

    definition: Definition
    scope: Scope
    id_base: int
    numbers: Iterator[int]
    created: float
    flow_run_id: str | None = None
    route: Any = None
    submitted: int = 0
    journal_key: int = 0
    journal_submitted: int = 0
    source: bytes | None = None
    keeping: Any = False
    usual: Any = None
    usual_unary: Any = None


class Scope:
    """Owner of runs.

    flow_run: the flow run that this is the scope of; None outside flows.
    holder: the run that called the flow and waits while it runs: its slots and its worker are kept busy.
    """

    def __init__(
        self,
        engine: EngineSeam | Callable[[], EngineSeam],
        name: str,
        *,
        parent: Scope | None = None,
        flow_run: Any = None,
        holder: Any = None,
        task_runner: Any = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.has_engine = isinstance(engine, EngineSeam)  # whether anything has needed it yet
        if isinstance(engine, EngineSeam):
            self.engine = engine
        else:
            self._open_engine = engine
        self.holder = holder
        self.name = name
        self.parent = parent
        self.flow_run = flow_run
        self.task_runner = task_runner
        self.series: dict[Definition, Series] = {}
        self.open_calls = 0
        self.total = 0
        self.live: set[Any] = set()
        self.failed: list[OpenRun] = []
        self.when_empty: list[Callable[[], object]] = []
        self.streams: set[OpenStream] = set()
        self.stop_reason: str | None = None
        self.cancelled_count = 0
        self.cancelled_names: list[str] = []
        self.ended = False
        self.recorder = recorder
        self.sketch: Any = None  # what takes note of what is started here, where nothing is to be run
        self.durable: Any = None  # of a durable flow run: what it has finished in an earlier process

    @cached_property  # not __getattr__, beside which every look at any attribute would take twice as long
    def engine(self) -> EngineSeam:
        """The engine that drives what is started here; if it was given as a function, made when first asked for."""
        engine = self._open_engine()
        self.has_engine = True
        return engine

    def series_of(self, definition: Definition) -> Series:
        """The series that numbers this task's runs here."""
        series = self.series.get(definition)
        if series is None:
            if len(self.series) >= MOST_SERIES:  # a service that makes tasks without end
                self.series.pop(next(iter(self.series)), None)
            base = random_bits(RANDOM_BITS - 1)  # one bit less: numbers are added, and must not run over
            fresh = Series(definition, self, base, counting(), clock().time(), self.flow_run_id())
            series = self.series.setdefault(definition, fresh)
        return series

    @property
    def is_strict(self) -> bool:
        """Whether everything that has ended must be safe in the store before anything else begins here."""
        return self.durable is not None and bool(self.durable.strict)

    def flow_run_id(self) -> str | None:
        """The flow run that what is started here belongs to; it may be one of another process."""
        if self.flow_run is not None:
            return str(self.flow_run.id)
        elsewhere = ELSEWHERE.get()
        return elsewhere.facts().flow_run_id if elsewhere is not None else None

    def perform(self, act: Callable[[], None]) -> None:
        """Do this on the loop's thread, unless nothing was started here, or the loop has ended; from any thread."""
        if self.has_engine:
            with suppress(RuntimeClosedError):
                self.engine.perform(act)

    def notify_when_empty(self, callback: Callable[[], object]) -> None:
        """Call this as soon as nothing that was started here is under way."""
        if self.open_calls:
            self.when_empty.append(callback)
        else:
            callback()

    def tell_empty(self) -> None:
        """The last submit or map under way has ended with all its runs."""
        self.engine.scope_is_empty(self)
        if self.when_empty:
            waiting, self.when_empty = self.when_empty, []
            for callback in waiting:
                callback()

    def stop(self, reason: str, also_running: bool = True) -> None:
        """Refuse to start what has not begun, and cancel what runs, unless it may go on to its end."""
        if self.stop_reason is None:
            self.stop_reason = reason
        self.end_streams(reason)
        for run in list(self.live):
            if also_running or run.status != RUNNING:
                self.engine.stop_run(run, reason)

    def end_streams(self, reason: str) -> None:
        """End the streams that were not taken to their end: whoever would take from them is over."""
        for stream in list(self.streams):
            stream.end(reason)

    def note_cancelled(self, run: OpenRun) -> None:
        """A run of this scope was cancelled."""
        self.cancelled_count += 1
        if len(self.cancelled_names) < MOST_NAMES:
            self.cancelled_names.append(run.name)

    def what_was_cancelled(self) -> str:
        """For a message; empty if nothing was."""
        if not self.cancelled_count:
            return ""
        more = self.cancelled_count - len(self.cancelled_names)
        named = ", ".join(self.cancelled_names) + (f" and {more} more" if more else "")
        return f"Cancelled {self.cancelled_count} task run(s): {named}"

    def begin_again(self) -> None:
        """Forget what became of an earlier attempt of the flow run."""
        self.stop_reason = None
        self.total = 0
        self.failed = []
        self.cancelled_count, self.cancelled_names = 0, []

    def never_looked_at(self) -> list[OpenRun]:
        """The runs that ended badly and whose outcome nobody asked for, in the order they ended."""
        return [run for run in self.failed if not run.looked]

    def close(self, flow_run: Any = None) -> None:
        """Let go of everything; what is submitted later is refused. flow_run: what to remember of it."""
        self.ended = True
        self.flow_run = flow_run
        self.parent = self.holder = None
        self.series = {}
        self.failed = []
        self.live = set()


CURRENT_SCOPE: ContextVar[Scope | None] = ContextVar("upwell_scope", default=None)
"""The flow run whose code this is, as the owner of what it starts."""


def current_sketch() -> Any:
    """What takes note of what is started here, where a flow is drawn and nothing is to be run; None elsewhere."""
    scope = CURRENT_SCOPE.get()
    return None if scope is None else scope.sketch


CURRENT_TAGS: ContextVar[frozenset[str]] = ContextVar("upwell_tags", default=frozenset())
"""The tags that `with tags(...)` adds to the runs started inside."""


def names_of(runs: Iterable[OpenRun], most: int = MOST_NAMES) -> str:
    """A few names in a row, for a message."""
    names = [run.name for run in runs]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
