"""Durable flow runs in the store: begun and claimed once, whatever the store does, and by nobody who is dead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from upwell import flow
from upwell.core.definition import Definition
from upwell.core.errors import NotResumableError
from upwell.core.states import PENDING, State
from upwell.engine.clock import moment
from upwell.engine.durable_records import Claim
from upwell.engine.flow_run import FlowRun, Wish
from upwell.journal.batch import Batch
from upwell.journal.database import Database
from upwell.journal.durable import Beginnings
from upwell.journal.durable_store import SqlDurable
from upwell.journal.processes import Process, this_process
from upwell.journal.rows import RowMaker
from upwell.journal.sqlite import MemoryDatabase
from upwell.journal.store import ProcessLost, SqlStore
from upwell.testing.crashing_store import Fault, FaultyDatabase


@flow(durable=True)
def something() -> None:
    pass


class Beginner:
    """One process that begins flow runs."""

    def __init__(self, database: Database, process: Process) -> None:
        self.process = process
        self.store = SqlStore(database)
        self.beginnings = Beginnings(SqlDurable(database, process.id, 5))
        self.maker = RowMaker(process.id, lambda _: None)

    async def begin(self, **wish: Any) -> Claim:
        definition: Definition = something._definition  # pyright: ignore[reportPrivateUsage]  # as a call does
        run = FlowRun(definition, (), {}, Wish(**wish))
        run.arguments, run.entrypoint, run.source_hash = b"0" * 16, "here:something", "source"
        run.states = [State(type=PENDING, name="Pending", timestamp=moment(run.created))]
        return await self.beginnings.begin_flow_run(self.maker, run)


def process_of(number: int) -> Process:
    return replace(this_process(30), pid_started=f"{number}", host=f"machine-{number}/1/1")


async def beginner(database: Database, number: int = 1) -> Beginner:
    made = Beginner(database, process_of(number))
    await made.store.open(made.process)
    return made


async def abandon(one: Beginner, *ids: str) -> None:
    """Its process has died, and it has been noticed."""
    async with one.store.database.transaction() as session:
        await session.fetch_text("UPDATE processes SET state = 'lost' WHERE id = :id", id=one.process.id)
        for identity in ids:
            await session.fetch_text(
                "UPDATE flow_runs SET state = 'SCHEDULED', state_name = 'AwaitingResume', process_id = NULL "
                "WHERE id = :id", id=identity,
            )  # fmt: skip


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("n", range(1, 12))
def test_a_run_is_begun_once_whatever_the_store_does(fault: Fault, n: int) -> None:
    async def main() -> None:
        memory = MemoryDatabase()
        faulty = FaultyDatabase(memory, fail_at=10**9, fault=fault)
        one = await beginner(faulty)
        faulty._fail_at = n + (faulty.operations if fault is Fault.REFUSED else faulty.transactions)  # pyright: ignore[reportPrivateUsage]  # from here on
        claim = await one.begin(idempotency_key="key" if n % 2 else None)
        assert await memory.fetch_text("SELECT id, state FROM flow_runs") == [(claim.flow_run_id, "PENDING")]
        assert await memory.fetch_text("SELECT count(*) FROM flow_run_states") == [(1,)]

    asyncio.run(main())


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("n", range(1, 16))
def test_a_run_is_claimed_once_whatever_the_store_does(fault: Fault, n: int) -> None:
    async def main() -> None:
        memory = MemoryDatabase()
        first = await beginner(memory)
        claim = await first.begin()
        await abandon(first, claim.flow_run_id)
        faulty = FaultyDatabase(memory, fail_at=10**9, fault=fault)
        second = await beginner(faulty, 2)
        faulty._fail_at = n + (faulty.operations if fault is Fault.REFUSED else faulty.transactions)  # pyright: ignore[reportPrivateUsage]  # from here on
        again = await second.begin()
        assert again.resumed
        assert again.flow_run_id == claim.flow_run_id
        with pytest.raises(NotResumableError, match="this process is at work on it"):
            await second.begin(resume=claim.flow_run_id)  # it is its own, and it knows that

    asyncio.run(main())


def test_who_would_resume_a_run_that_goes_on_hears_where() -> None:
    async def main() -> None:
        memory = MemoryDatabase()
        first, second = await beginner(memory), await beginner(memory, 2)
        claim = await first.begin()
        with pytest.raises(NotResumableError, match=f"process {first.process.pid} on machine-1 is at work on it"):
            await second.begin(resume=claim.flow_run_id)

    asyncio.run(main())


def test_a_process_that_was_declared_dead_begins_nothing() -> None:
    async def main() -> None:
        memory = MemoryDatabase()
        first, second = await beginner(memory), await beginner(memory, 2)
        claim = await first.begin()
        await abandon(first, claim.flow_run_id)
        with pytest.raises(ProcessLost):
            await first.begin()
        assert (await second.begin()).flow_run_id == claim.flow_run_id

    asyncio.run(main())


def test_two_processes_begin_one_run_of_one_key(make_database: Any) -> None:
    async def main() -> None:
        processes = [await beginner(make_database(), number) for number in range(1, 5)]
        runs = [asyncio.create_task(one.begin(idempotency_key="key")) for one in processes]
        done, _ = await asyncio.wait(runs, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        more, waiting = await asyncio.wait(set(runs) - done, timeout=0.3)
        assert more == set()
        for run in waiting:
            run.cancel()
        await asyncio.wait(waiting)
        rows = await processes[0].store.database.fetch_text("SELECT id FROM flow_runs")
        assert rows == [(done.pop().result().flow_run_id,)]
        for one in processes:
            await one.store.close(one.process)

    asyncio.run(main())


def test_one_of_two_processes_claims_a_run(make_database: Any) -> None:
    async def main() -> None:
        first = await beginner(make_database())
        identity = (await first.begin()).flow_run_id
        await abandon(first, identity)
        others = [await beginner(make_database(), number) for number in range(2, 6)]
        answers = await asyncio.gather(*(one.begin(resume=identity) for one in others), return_exceptions=True)
        assert [type(answer) for answer in answers].count(Claim) == 1
        assert [type(answer) for answer in answers].count(NotResumableError) == 3
        for one in (first, *others):
            await one.store.close(one.process)

    asyncio.run(main())


def test_what_a_dead_process_has_spooled_of_a_run_that_others_took_over_is_left_out(make_database: Any) -> None:
    async def main() -> None:
        first, second = await beginner(make_database()), await beginner(make_database(), 2)
        database = second.store.database
        identity = (await first.begin()).flow_run_id
        ((key,),) = await database.fetch_text("SELECT key FROM processes WHERE id = :id", id=first.process.id)
        await first.store.write(_batch(first, 1, key, identity, number=0))
        await abandon(first, identity)
        await second.begin()
        with pytest.raises(ProcessLost):
            await first.store.write(_batch(first, 2, key, identity, number=1))
        await second.store.take_over(first.process, _batch(first, 2, key, identity, number=1))
        assert await database.fetch_text("SELECT number FROM task_runs") == [(0,)]
        assert await database.fetch_text("SELECT number FROM task_run_results") == [(0,)]
        assert await database.fetch_text("SELECT submitted FROM series") == [(1,)]
        for one in (first, second):
            await one.store.close(one.process)

    asyncio.run(main())


def test_what_it_has_spooled_of_one_that_nobody_took_over_counts(make_database: Any) -> None:
    async def main() -> None:
        first, second = await beginner(make_database()), await beginner(make_database(), 2)
        identity = (await first.begin()).flow_run_id
        database = second.store.database
        ((key,),) = await database.fetch_text("SELECT key FROM processes WHERE id = :id", id=first.process.id)
        await abandon(first, identity)
        await second.store.take_over(first.process, _batch(first, 1, key, identity, number=0))
        claim = await second.begin()
        assert (claim.flow_run_id, len(claim.finished)) == (identity, 1)
        for one in (first, second):
            await one.store.close(one.process)

    asyncio.run(main())


def test_what_it_has_spooled_and_not_ended_has_crashed_in_the_series_of_a_process_before_too(
    make_database: Any,
) -> None:
    async def main() -> None:
        first, second, third = [await beginner(make_database(), number) for number in (1, 2, 3)]
        database = third.store.database
        identity = (await first.begin()).flow_run_id
        ((key,),) = await database.fetch_text("SELECT key FROM processes WHERE id = :id", id=first.process.id)
        await first.store.write(_batch(first, 1, key, identity, number=0))
        await abandon(first, identity)
        await second.begin()
        await abandon(second, identity)
        ((own,),) = await database.fetch_text("SELECT key FROM processes WHERE id = :id", id=second.process.id)
        row = ((key << 28) + 1, 1, 1, 2, None, "RUNNING", None, None, 1, None, None, None, None)
        await third.store.take_over(second.process, Batch(second.process.id, own, 1, task_runs=[row]))
        rows = await database.fetch_text("SELECT number, state FROM task_runs ORDER BY number")
        assert rows == [(0, "COMPLETED"), (1, "CRASHED")]
        for one in (first, second, third):
            await one.store.close(one.process)

    asyncio.run(main())


def _batch(one: Beginner, written: int, key: int, flow_run_id: str, number: int) -> Batch:
    """A task run that completed, with its result."""
    series = (key << 28) + 1
    return Batch(
        one.process.id, key, written,
        series=[(series, f"{7:019x}", "step", flow_run_id, 1, None, None, number + 1, one.process.id)],
        completed_runs=[(series, number, 1, 2, 3, None)],
        results=[(series, number, b"\x91\x01", b"k" * 16)],
    )  # fmt: skip
