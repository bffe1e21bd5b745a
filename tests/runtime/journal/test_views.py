"""What pages ask of a store: on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec import msgpack

from upwell import composition, flow, get_run_logger, task
from upwell.composition import make_database, open_control
from upwell.core.deployments import DeploymentSpec, RunSpec
from upwell.core.states import COMPLETED, FAILED, SCHEDULED
from upwell.engine.durable_records import waiting_record
from upwell.history import History
from upwell.journal.reader_sessions import Nothing
from upwell.journal.sql import Dialect, queries
from upwell.journal.views import Views, names_of
from upwell.settings import temporary_settings

NUMBERS = range(20)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A store in which two flows have run, and of which one run waits for its time and one is late."""
    url: str | None = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with temporary_settings(journal="on", home=str(tmp_path), database_url=url, logging_level="WARNING"):
        fill()
        yield
        composition.close_journal()


def fill() -> None:
    @task
    def double(number: int) -> int:
        get_run_logger().warning("doubling %s", number)
        if number == 7:
            raise ValueError("seven")
        return 2 * number

    @task(persist_result=True)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @flow
    def work() -> int:
        numbers = [future for future, number in zip(double.map(NUMBERS), NUMBERS, strict=True) if number != 7]
        return total.submit(numbers).result()

    @flow
    def idle() -> None: ...

    with pytest.raises(Exception, match=r"seven|never looked at"):
        work()
    idle()
    composition.flush_journal()
    asyncio.run(plan())


async def plan() -> None:
    now = dt.datetime.now(dt.UTC)
    async with open_control() as control:
        spec = DeploymentSpec(flow_name="planned", name="one", entrypoint="x.py:planned")
        deployment = await control.apply_deployment(spec)
        await control.run_deployment(deployment.id, RunSpec(due=now + dt.timedelta(hours=2), name="later"))
        await control.run_deployment(deployment.id, RunSpec(due=now + dt.timedelta(hours=1), name="soon"))


def test_all_of_them(store: None) -> None:
    async def main() -> None:
        database = make_database(read_only=True)
        await database.open()
        try:
            async with History() as history:
                await ask(Views(database), history)
        finally:
            await database.close()

    asyncio.run(main())


async def ask(views: Views, history: History) -> None:
    assert await views.flow_names() == ["idle", "planned", "work"]
    assert await views.open_runs() == {(SCHEDULED, "Scheduled"): 2}
    coming = await views.due_runs(5)
    assert [run.name for run in coming] == ["soon", "later"]
    assert await views.due_runs(5, overdue=True) == []
    assert len(await views.due_runs(5, deployment=coming[0].deployment_id)) == 2
    work = (await history.flow_runs(flow="work")).items[0]
    await ask_of_last_runs(views, coming[0].deployment_id)
    progress = await views.progress([work.id, coming[0].id])
    assert {run: +counts for run, counts in progress.items()} == {work.id: {COMPLETED: 20, FAILED: 1}}
    spans = (await history.timeline(work.id)).items
    assert [span.name for span in spans if span.is_flow_run] == [work.name]
    assert {span.name for span in spans[1:]} == {"total-0", *(f"double-{number}" for number in NUMBERS)}
    assert {span.flow_run_id for span in spans} == {work.id}
    await ask_of_pictures(views, work.id, work.created)
    await ask_of_logs(views, work.id)
    await ask_of_neighbours(views, history, work.id)


async def ask_of_last_runs(views: Views, deployment_id: UUID | None) -> None:
    now = dt.datetime.now(dt.UTC)
    later = now + dt.timedelta(hours=3)
    assert await views.recent_flows(now, 10) == ["idle", "work"]
    assert await views.recent_flows(later, 1) == ["planned"]
    last = await views.last_runs_of_flows(["work", "planned", "none"], now, 5)
    assert {flow: [run.state.type for run in runs] for flow, runs in last.items()} == {"work": [FAILED]}
    (run,) = last["work"]
    assert "never looked at" in (run.state.message or "") or "seven" in (run.state.message or "")
    assert run.start_time is not None
    assert run.end_time is not None
    assert run.created <= run.start_time <= run.end_time
    assert deployment_id is not None
    assert await views.last_runs_of_deployments([deployment_id], now, 5) == {}
    for limit, names in ((5, ["soon", "later"]), (1, ["soon"])):
        of_one = await views.last_runs_of_deployments([deployment_id], later, limit)
        assert [run.name for run in of_one[str(deployment_id)]] == names


async def ask_of_pictures(views: Views, run_id: UUID, since: dt.datetime) -> None:
    starts = await views.starts([run_id], since, dt.timedelta(minutes=5))
    assert {(start.task, start.state, start.runs) for start in starts} == {
        ("double", COMPLETED, 19),
        ("double", FAILED, 1),
        ("total", COMPLETED, 1),
    }
    assert await views.dependencies(run_id) == [("double", "total", 19)]


async def ask_of_logs(views: Views, run_id: UUID) -> None:
    tail = await views.log_tail(run_id, level=30, text="DOUBLING", before=None, limit=8)
    assert len(tail.lines) == 8
    assert tail.before == tail.keys[0]
    seen = list(tail.lines)
    while tail.before is not None:
        tail = await views.log_tail(run_id, level=30, text="doubling", before=tail.before, limit=8)
        seen = [*tail.lines, *seen]
    assert sorted(line.message for line in seen) == sorted(f"doubling {number}" for number in NUMBERS)
    names = names_of(await views.series(run_id), [line.task_run_id for line in seen if line.task_run_id])
    assert sorted(names.values()) == sorted(f"double-{number}" for number in NUMBERS)
    assert (await views.log_tail(run_id, level=0, text="100%_!", before=None, limit=8)).lines == ()


async def ask_of_neighbours(views: Views, history: History, run_id: UUID) -> None:
    total = (await history.task_runs(flow_run_id=run_id, task="total")).items[0]
    found = await views.neighbours(total.id)
    assert len(found.upstream) == 12
    assert found.more_upstream
    assert found.downstream == ()
    below = await views.neighbours(found.upstream[0].id)
    assert [(one.name, one.argument) for one in below.downstream] == [("total-0", "numbers")]
    stored = await views.stored_result(total.id)
    assert stored is not None
    assert stored.serializer == "msgpack"
    assert await views.stored_result(found.upstream[0].id) is None


def test_how_far_runs_are_is_not_looked_for_among_all_that_ever_failed(tmp_path: Path) -> None:
    with temporary_settings(journal="on", home=str(tmp_path)):
        fill()
        composition.close_journal()
    (file,) = tmp_path.glob("*.db")
    with closing(sqlite3.connect(file)) as connection:
        text = queries(Dialect.SQLITE)["view_progress_states"].text
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", ("[]",))]
    assert any("task_runs_series_state" in step for step in plan), plan
    assert not any("task_runs_state " in step for step in plan), plan


def test_what_is_stored_of_a_durable_run_is_described_though_it_is_the_value_itself() -> None:
    class OneRow(Nothing):
        def __init__(self, record: bytes | None) -> None:
            self.record = record

        async def fetch(self, query: str, /, **parameters: Any) -> list[Any]:
            return [("name", "COMPLETED", None, None, self.record)] if query == "flow_run_result" else []

    async def described(record: bytes | None) -> tuple[int, str] | None:
        found = await Views(OneRow(record)).stored_result(uuid4())
        return None if found is None else (found.size, found.serializer)

    async def main() -> None:
        assert await described(b"\x91" + msgpack.encode("value")) == (6, "msgpack")
        assert await described(waiting_record(1, 0.0)) is None
        assert await described(None) is None

    asyncio.run(main())
