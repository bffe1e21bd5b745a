"""What has run: flow runs and task runs, their states, logs and dependencies, as the journal has recorded them.

From scripts the functions of this module answer: `history.task_runs(state="FAILED")`. Each opens the store, asks, and
closes it. In async code, and for many questions, `async with History() as h: await h.task_runs(...)`.
What has happened in this process until now is written before something is read.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, Self, TypeAlias, TypeVar
from uuid import UUID

from upwell import composition
from upwell.core.errors import RuntimeClosedError, UnknownRunError
from upwell.core.model import Edge, FlowRunRecord, LogLine, Page, RunTree, Span, StateCounts, TaskGroup, TaskRun
from upwell.core.states import State, StateType
from upwell.engine.clock import clock, moment
from upwell.journal.measures import FlowSummary
from upwell.journal.processes import has_dead
from upwell.journal.reader import FlowRunFilter, Reader
from upwell.journal.reader_sessions import InMemory, open_to_read, see_who_died
from upwell.journal.reader_task_runs import TaskRunFilter
from upwell.journal.sql import Dialect
from upwell.settings import Settings
from upwell.settings import current as settings

if TYPE_CHECKING:
    import asyncio

    from upwell.journal.database import Database
    from upwell.journal.journal import Journal
    from upwell.journal.remote_client import ApiClient
    from upwell.journal.remote_reader import RemoteReader

P = ParamSpec("P")
R = TypeVar("R")

PAGE_ITEMS: Final = 50
"""How many items a page has unless said; 1,000 at most."""

Order: TypeAlias = Literal["newest", "oldest"]
Id: TypeAlias = UUID | str
When: TypeAlias = dt.datetime | dt.timedelta
"""A moment, with its time zone; or so long ago."""


class History:
    """The journal's store, opened to be read: `async with History() as history`. Nothing is written to it, but that a
    process has died, where nobody has seen that before: its runs are not shown as under way.

    It is the store that the settings name when it is opened, or that of the server that they name. Where nothing has
    been recorded yet, there is nothing: pages are empty, and no file is made. To be used on one event loop, by any
    number of tasks.

    alone: the loop has nothing else to do, and may be kept waiting: then a SQLite file is read without a thread for it.
    patience_seconds: how long a server that cannot be reached is tried again; 10 unless said.
    sees_dead: False: whoever asks has seen to that.

    Every method raises:
        StoreUnavailable: the store cannot be read just now.
        ValueError: an argument that means nothing: an unknown order, a limit out of bounds, a text that is no id.
    """

    def __init__(self, *, alone: bool = False, patience_seconds: float | None = None, sees_dead: bool = True) -> None:
        self._settings: Settings | None = None
        self._database: Database | None = None
        self._client: ApiClient | None = None
        self._alone = alone
        self._patience_seconds = patience_seconds
        self._sees_dead = sees_dead
        self._opening: asyncio.Lock | None = None

    async def __aenter__(self) -> Self:
        self._settings = settings()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self._settings = None
        database, self._database = self._database, None
        if database is not None:
            await database.close()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # --- flow runs ------------------------------------------------------------------------------------------

    async def flow_runs(
        self,
        *,
        flow: str | None = None,
        state: StateType | str | None = None,
        tags: Iterable[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        text: str | None = None,
        parent: Id | None = None,
        deployment: Id | None = None,
        ahead: bool = True,
        order: Order = "newest",
        limit: int = PAGE_ITEMS,
        after: str | None = None,
    ) -> Page[FlowRunRecord]:
        """A page of flow runs by when they were created.

        Args:
            flow: the name of their flow.
            state: a type of state (`"FAILED"`), or a state's name (`"TimedOut"`).
            tags: all of these they have.
            since, until: created at or after the one, and before the other; a timedelta is so long ago.
            text: part of their name or of their flow's, in capitals or not.
            parent: the flow run that started them.
            deployment: whose runs they are, by its id or as `flow/deployment`.
            ahead: those that are due only later, too; schedules make runs ahead of their time.
            after: the `next` of the page before.
        """
        wanted = FlowRunFilter(
            flow=flow,
            state=state,
            tags=tags,
            since=_moment("since", since),
            until=_moment("until", until),
            text=text,
            parent=parent,
            deployment=deployment,
            ahead=ahead,
        )
        reader = await self._reader()
        return await reader.flow_runs(wanted, order, limit, after)

    async def flow_run(self, run_id: Id) -> FlowRunRecord:
        """One flow run.

        Raises:
            UnknownRunError: it is not in the journal.
        """
        reader = await self._reader()
        return await reader.flow_run(run_id)

    async def flow_runs_by_id(self, beginning: str, *, limit: int = PAGE_ITEMS) -> list[FlowRunRecord]:
        """Flow runs whose ids begin with this, at least 6 digits; the newest first.

        Raises:
            ValueError: it is no beginning of an id.
        """
        reader = await self._reader()
        return await reader.flow_runs_by_id(beginning, limit)

    # --- task runs ------------------------------------------------------------------------------------------

    async def task_runs(
        self,
        *,
        flow_run_id: Id | None = None,
        task: str | None = None,
        flow: str | None = None,
        state: StateType | str | None = None,
        tags: Iterable[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        text: str | None = None,
        parent: Id | None = None,
        order: Order = "newest",
        limit: int = PAGE_ITEMS,
        after: str | None = None,
    ) -> Page[TaskRun]:
        """A page of task runs by when they were submitted.

        Those of one flow run (`flow_run_id`) that have not begun come after all others, as PENDING; elsewhere they are
        left out, for the journal has no more of them than their number.

        Args:
            flow_run_id: whose task runs; without those of the flow runs that it has started.
            task: the name of their task.
            flow: the name of the flow in whose runs they ran.
            state: a type of state (`"FAILED"`), or a state's name (`"TimedOut"`).
            tags: all of these they have.
            since, until: created at or after the one, and before the other; a timedelta is so long ago.
            text: part of their task's name or of their own (`task_run_name`), in capitals or not; or `fetch-3`.
            parent: the task run that started them.
            after: the `next` of the page before.
        """
        wanted = TaskRunFilter(
            flow_run_id=flow_run_id,
            task=task,
            flow=flow,
            state=state,
            tags=tags,
            since=_moment("since", since),
            until=_moment("until", until),
            text=text,
            parent=parent,
        )
        reader = await self._reader()
        return await reader.task_runs(wanted, order, limit, after)

    async def task_run(self, run_id: Id) -> TaskRun:
        """One task run.

        Raises:
            UnknownRunError: it is not in the journal.
        """
        reader = await self._reader()
        return await reader.task_run(run_id)

    # --- what happened to a run -----------------------------------------------------------------------------

    async def states(self, run_id: Id) -> list[State]:
        """All states that a flow run or a task run has been in, in their order; without data.

        Raises:
            UnknownRunError: it is not in the journal.
        """
        reader = await self._reader()
        return await reader.states(run_id)

    async def logs(
        self, run_id: Id, *, level: int = 0, limit: int = PAGE_ITEMS, after: str | None = None
    ) -> Page[LogLine]:
        """A page of the log of a flow run, its task runs included, or of a task run; in the order of writing.

        Args:
            level: the least severe lines that are wanted, as in `logging`: 30 leaves out what is less than WARNING.

        Raises:
            UnknownRunError: it is not in the journal.
        """
        reader = await self._reader()
        return await reader.logs(run_id, level, limit, after)

    async def edges(self, flow_run_id: Id, *, limit: int = 1_000, after: str | None = None) -> Page[Edge]:
        """A page of what waited for what among the task runs of a flow run.

        Raises:
            UnknownRunError: it is not in the journal.
        """
        reader = await self._reader()
        return await reader.edges(flow_run_id, limit, after)

    # --- overviews ------------------------------------------------------------------------------------------

    async def flows(
        self, *, text: str | None = None, limit: int = PAGE_ITEMS, after: str | None = None
    ) -> Page[FlowSummary]:
        """A page of flows by name: those that have run, and those that have deployments; with their newest run.

        Args:
            text: part of their name, in capitals or not.
            after: the `next` of the page before.
        """
        reader = await self._reader()
        return await reader.flows(text, limit, after)

    async def tree(self, flow_run_id: Id, *, runs_per_task: int = 20) -> RunTree:
        """A flow run with its task runs, grouped by task, and the flow runs that it has started, each a tree again.

        Args:
            runs_per_task: how many of the runs of each task, the first ones, are in it; all are counted.

        Raises:
            UnknownRunError: it is not in the journal.
        """
        reader = await self._reader()
        return await reader.tree(flow_run_id, runs_per_task)

    async def timeline(self, flow_run_id: Id, *, limit: int = 1_000, after: str | None = None) -> Page[Span]:
        """A page of what ran when in a flow run and in those that it has started, in the order of starts.

        All flow runs stand on the first page, beside `limit` task runs. What has not started comes last.

        Raises:
            UnknownRunError: it is not in the journal.
        """
        reader = await self._reader()
        return await reader.timeline(flow_run_id, limit, after)

    async def counts(
        self,
        *,
        of: Literal["task_runs", "flow_runs"] = "task_runs",
        by: Literal["minute", "hour", "day"] | float = "hour",
        since: When | None = None,
        until: When | None = None,
    ) -> list[StateCounts]:
        """How many runs are in which state now, by when they were created; an item for each span of time.

        Task runs that have not begun count as PENDING, by when the first run of their task and flow run was created.

        Args:
            by: how long a span is: a name, or seconds.
            since, until: the last day unless said; no more than 10,000 spans.
        """
        last = _moment("until", until) or moment(clock().time()) + dt.timedelta(microseconds=1)
        first = _moment("since", since) or last - dt.timedelta(days=1)
        reader = await self._reader()
        return await reader.counts(of, by, first, last)

    # --- the store ------------------------------------------------------------------------------------------

    async def _reader(self) -> Reader | RemoteReader:
        """Reads the store, in which is now whatever has happened in this process before."""
        wanted = self._settings
        if wanted is None:
            raise RuntimeClosedError("This History is not open: use it inside of `async with History() as history`.")
        kept = composition.journal_kept()
        if kept is not None:
            if self._alone:
                kept[1].flush()  # without an event loop, which is not there where a command does without
            else:
                await _written(kept[1])
        if wanted.journal == "memory":
            if kept is None or kept[0].journal != "memory":
                return Reader(None, "memory")
            return Reader(InMemory(kept[1]), "memory")
        if composition.is_remote(wanted):
            from upwell.journal.remote_reader import RemoteReader  # here: few programs work through a server

            self._client = self._client or composition.api_client(wanted, patience_seconds=self._patience_seconds)
            return RemoteReader(self._client)
        if self._alone:
            await self._open(wanted)
        else:
            import asyncio  # here, as below: a command that reads a file here has no event loop, and loads none

            self._opening = self._opening or asyncio.Lock()
            async with self._opening:
                await self._open(wanted)
        return Reader(self._database, "the journal" if self._database is None else self._database.place)

    async def _open(self, wanted: Settings) -> None:
        if self._database is None:
            make = functools.partial(composition.make_database, wanted, on_a_thread=not self._alone)
            self._database = database = await open_to_read(make)
            if database is None or not self._sees_dead:
                return
            if await has_dead(database, perhaps=database.dialect is Dialect.SQLITE):  # else only time can tell
                await see_who_died(make, wanted.durable_max_crashes)


async def _written(journal: Journal) -> None:
    """Wait until everything that was recorded until now can be read."""
    import asyncio

    loop = asyncio.get_running_loop()
    written: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not written.done():
            written.set_result(None)

    def tell_the_loop() -> None:
        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:
            pass  # it was closed: nobody waits

    journal.when_written(tell_the_loop)
    await written


# --- the same from sync code --------------------------------------------------------------------------------


def _moment(name: str, when: When | None) -> dt.datetime | None:
    if isinstance(when, dt.timedelta):
        return moment(clock().time()) - when
    if when is None or isinstance(when, dt.datetime):  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
        return when
    raise TypeError(f"{name} takes a datetime with a time zone, or a timedelta: so long ago; not {when!r}")


def _blocking(question: Callable[Concatenate[History, P], Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """The question as a function that opens a History, asks, and closes it, on a thread of its own.

    So it can be asked from anywhere: from code that an event loop runs, too, which it blocks for so long.
    """

    @functools.wraps(question)
    def ask(*args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio
        from concurrent.futures import Future

        async def opened() -> R:
            async with History(alone=True) as history:
                return await question(history, *args, **kwargs)

        answer: Future[R] = Future()

        def serve() -> None:
            try:
                answer.set_result(asyncio.run(opened()))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=serve, name="upwell-history", daemon=True).start()
        return answer.result()

    first, *others = inspect.signature(question).parameters.values()
    assert first.name == "self"
    ask.__signature__ = inspect.Signature(others)  # type: ignore[attr-defined]  # `self` is given
    ask.__qualname__ = question.__name__
    return ask


flows = _blocking(History.flows)
flow_runs = _blocking(History.flow_runs)
flow_runs_by_id = _blocking(History.flow_runs_by_id)
flow_run = _blocking(History.flow_run)
task_runs = _blocking(History.task_runs)
task_run = _blocking(History.task_run)
states = _blocking(History.states)
logs = _blocking(History.logs)
edges = _blocking(History.edges)
tree = _blocking(History.tree)
timeline = _blocking(History.timeline)
counts = _blocking(History.counts)

__all__ = [
    "Edge",
    "FlowRunRecord",
    "FlowSummary",
    "History",
    "LogLine",
    "Page",
    "RunTree",
    "Span",
    "StateCounts",
    "TaskGroup",
    "TaskRun",
    "UnknownRunError",
    "counts",
    "edges",
    "flow_run",
    "flow_runs",
    "flow_runs_by_id",
    "flows",
    "logs",
    "states",
    "task_run",
    "task_runs",
    "timeline",
    "tree",
]
