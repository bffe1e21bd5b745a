"""A store with a control over it, processes that live and die there, and a clock that is set by hand."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any, Final, TypeVar
from uuid import UUID

from upwell.core.deployments import ClaimSpec, Deployment, DeploymentSpec, Job, RunSpec, ScheduleSpec
from upwell.core.model import FlowRunRecord
from upwell.core.states import State
from upwell.engine.clock import SystemClock
from upwell.journal.control import Control
from upwell.journal.database import Database
from upwell.journal.liveness import Observer
from upwell.journal.migrations import migrate
from upwell.journal.processes import Process, this_host, this_process
from upwell.journal.reader import Reader
from upwell.journal.sql_control import SqlControl
from upwell.journal.store import register

T = TypeVar("T")

NOON: Final = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
"""A Monday."""

_numbers = count(1)


class SetClock(SystemClock):
    """Shows the time that it was set to."""

    def __init__(self) -> None:
        self.now = NOON.timestamp()

    def time(self) -> float:
        return self.now


OverDatabase = Callable[[Database], AbstractAsyncContextManager[Control]]
"""How a control is had for a database; its own way for each kind that passes these tests."""


@asynccontextmanager
async def in_this_process(database: Database) -> AsyncGenerator[Control]:
    """The control that works on the database itself."""
    yield SqlControl(database)


@asynccontextmanager
async def opened(make_database: Callable[[], Database]) -> AsyncGenerator[Control]:
    """A control with a connection of its own."""
    database = make_database()
    await database.open()
    try:
        yield SqlControl(database)
    finally:
        await database.close()


class World:
    """What a test has: a control, and the store behind it."""

    def __init__(self, database: Database, control: Control, clock: SetClock) -> None:
        self.database = database
        self.control = control
        self.clock = clock
        self.reader = Reader(database, database.place)

    @property
    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.clock.now, dt.UTC)

    def passes(self, seconds: float) -> None:
        """So much time passes."""
        self.clock.now += seconds

    def known_as(self, name: str) -> str:
        """By what name somebody is noted: a server goes by the key, or that there is none."""
        return name if isinstance(self.control, SqlControl) else "loopback"

    async def deploy(self, name: str = "daily", *, flow: str = "report", **fields: Any) -> Deployment:
        fields.setdefault("entrypoint", f"{flow}.py:{flow}")
        return await self.control.apply_deployment(DeploymentSpec(flow_name=flow, name=name, **fields))

    async def run(self, deployment: Deployment, **fields: Any) -> FlowRunRecord:
        return await self.control.run_deployment(deployment.id, RunSpec(**fields))

    async def process(self, *, dead: bool = False) -> str:
        """A process that is at work on the store. dead: as soon as somebody looks, it is found dead."""
        known = this_process(30)
        if dead:
            known = Process(known.id, this_host(), 2**22 - next(_numbers), "long ago", 30)
        async with self.database.transaction() as session:
            await register(session, known)
        return known.id

    async def look(self) -> None:
        """Find out who has died."""
        await Observer(self.database).look()

    async def claim(
        self, worker: str, deployment: Deployment | None = None, limit: int = 100, **scope: Any
    ) -> list[Job]:
        if deployment is not None:
            scope["deployments"] = [deployment.id]
        return await self.control.claim_jobs(ClaimSpec(worker_id=worker, limit=limit, **scope))

    async def begin(self, job: Job, process: str, *, durable: bool = False) -> None:
        """The run begins, and the journal of its process says so."""
        assert await self.control.begin_job(job, process, durable=durable)
        await self._set(job.flow_run_id, state="RUNNING", ended=None)

    async def end(self, run_id: UUID, state: str = "COMPLETED") -> None:
        """Its process says that the run has ended."""
        await self._set(run_id, state=state, ended=int(self.clock.now * 1e6))

    async def _set(self, run_id: UUID, **values: Any) -> None:
        async with self.database.transaction() as session:
            text = "UPDATE flow_runs SET state = :state, state_name = NULL, ended = :ended WHERE id = :id"
            await session.fetch_text(text, id=str(run_id), **values)

    async def state(self, run_id: UUID) -> State:
        return (await self.reader.flow_run(run_id)).state

    async def runs(self, deployment: Deployment, **fields: Any) -> list[FlowRunRecord]:
        from upwell.journal.reader import FlowRunFilter

        wanted = FlowRunFilter(deployment=deployment.id, **fields)
        page = await self.reader.flow_runs(wanted, "oldest", 1000, None)
        return sorted(page.items, key=lambda run: (run.due or NOON, run.id))

    async def due_times(self, deployment: Deployment) -> list[dt.datetime]:
        return [run.due for run in await self.runs(deployment, state="SCHEDULED") if run.due is not None]


def in_world(
    make_database: Callable[[], Database], over: OverDatabase, clock: SetClock, story: Callable[[World], Awaitable[T]]
) -> T:
    """Have this happen in a new world."""

    async def main() -> T:
        database = make_database()
        await database.open()
        try:
            await migrate(database)
            async with over(database) as control:
                return await story(World(database, control, clock))
        finally:
            await database.close()

    return asyncio.run(main())


def hourly(**fields: Any) -> ScheduleSpec:
    return ScheduleSpec(kind="cron", expression="0 * * * *", **fields)


def every(seconds: float, **fields: Any) -> ScheduleSpec:
    return ScheduleSpec(kind="interval", expression=str(seconds), **fields)


def hours(*numbers: int) -> list[dt.datetime]:
    """Full hours of the day."""
    return [NOON.replace(hour=0) + dt.timedelta(hours=number) for number in numbers]
