"""Runs of deployments are found by them, know when they were due, and go with all that was made for them."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

from upwell.core.deployments import DeploymentSpec, RunSpec, ScheduleSpec
from upwell.core.model import FlowRunRecord
from upwell.journal.database import Database
from upwell.journal.migrations import migrate
from upwell.journal.reader import FlowRunFilter, Reader
from upwell.journal.retention import Limits, tidy
from upwell.journal.sql_control import SqlControl

MakeDatabase = Callable[[], Database]


def test_flow_runs_are_found_by_their_deployment(make_database: MakeDatabase) -> None:
    async def main() -> None:
        database = make_database()
        await database.open()
        await migrate(database)
        control, reader = SqlControl(database), Reader(database, "here")

        async def found(**fields: object) -> list[FlowRunRecord]:
            wanted = FlowRunFilter(**fields)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            return list(await reader.flow_runs(wanted, "oldest", 100, None))

        one = await control.apply_deployment(DeploymentSpec(flow_name="f", name="one"))
        other = await control.apply_deployment(DeploymentSpec(flow_name="f", name="other"))
        due = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
        runs = [await control.run_deployment(one.id, RunSpec(due=due)) for _ in range(3)]
        await control.run_deployment(other.id, RunSpec(tags=("t",)))
        for ref in (one.id, str(one.id), "f/one"):
            page = await found(deployment=ref)
            assert {run.id for run in page} == {run.id for run in runs}
            assert {(run.due, run.deployment_id, run.state.scheduled_time) for run in page} == {(due, one.id, due)}
        assert len(await found(deployment="f/other", flow="f", tags=["t"], state="SCHEDULED")) == 1
        assert await found(deployment="f/none") == []
        ids = sorted((run.id for run in runs), reverse=True)
        every = [run.id for run in await reader.flow_runs_by_id(str(ids[0])[:6], 9)]
        assert every == sorted(every, reverse=True)
        assert set(ids) < set(every)
        assert [run.id for run in await reader.flow_runs_by_id(ids[1].hex[:-1].upper(), 9)] == [ids[1]]
        assert [run.id for run in await reader.flow_runs_by_id(str(ids[0])[:6], 1)] == every[:1]
        assert len(await found()) == 4
        await database.close()

    asyncio.run(main())


def test_what_is_old_goes_with_its_job(make_database: MakeDatabase) -> None:
    async def main() -> None:
        database = make_database()
        await database.open()
        await migrate(database)
        control = SqlControl(database)
        schedule = ScheduleSpec(kind="interval", expression="3600")
        deployment = await control.apply_deployment(DeploymentSpec(flow_name="f", name="d", schedules=(schedule,)))
        await control.make_ticks()
        ended = await control.run_deployment(deployment.id, RunSpec())
        await control.request_cancel(ended.id, by="ada")
        long_ago = "UPDATE flow_runs SET created = 1"
        async with database.transaction() as session:
            await session.fetch_text(long_ago)
        assert await tidy(database, "me", Limits(days=1)) == 1
        left = await database.fetch_text("SELECT count(*), count(DISTINCT state), min(state) FROM jobs")
        assert left == [(3, 1, "waiting")], "what has not ended is never too old"
        await database.close()

    asyncio.run(main())
