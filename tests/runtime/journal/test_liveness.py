"""Who has died is found out, by whoever looks; who has not is left alone, whatever the clocks say."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from upwell.engine.clock import SystemClock
from upwell.journal import liveness, processes
from upwell.journal.batch import SERIES_BITS, Batch
from upwell.journal.database import Database
from upwell.journal.liveness import Observer, watch_over
from upwell.journal.processes import Process, this_host, this_process
from upwell.journal.sqlite import SqliteDatabase
from upwell.journal.store import ProcessLost, SqlStore

MakeDatabase = Callable[[], Database]

LEASE_SECONDS = 0.2
"""Of processes that are made up here."""

NODE = this_host().rsplit("/", 2)[0]
BOOT = this_host().rsplit("/", 2)[1]
ELSEWHERE = f"{NODE}/{BOOT}/another-namespace"


def scenario(make_database: MakeDatabase, body: Callable[[SqlStore], Coroutine[Any, Any, None]]) -> None:
    """Run this with an open store."""

    async def main() -> None:
        store = SqlStore(make_database())
        await store.open(this_process(30.0))
        try:
            await body(store)
        finally:
            await store.database.close()

    asyncio.run(main())


def foreign(name: str = "foreign", host: str = ELSEWHERE) -> Process:
    """A process that cannot be seen from here."""
    return Process(name, host, 1, "1", LEASE_SECONDS)


def gone(name: str = "gone") -> Process:
    """A process of this machine that is not there any more."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return Process(name, this_host(), ended.pid, "1", 30.0)


def died(process: Process) -> str:
    """What is said of its runs."""
    return f"The process {process.pid} on {NODE} died: it was killed, or crashed."


async def register(database: Database, process: Process) -> int:
    seen = int(time.time() * 1e6)
    rows = await database.fetch(
        "register_process", id=process.id, host=process.host, pid=process.pid, pid_started=process.pid_started,
        seen=seen, lease_until=seen + int(process.lease_seconds * 1e6),
    )  # fmt: skip
    return int(rows[0][0])


async def put_flow_run(
    database: Any, run_id: str, process: Process, *, state: str = "RUNNING", durable: int = 0, ended: int | None = None
) -> None:
    await database.fetch_text(
        "INSERT INTO flow_runs"
        " (id, flow, name, state, created, ended, run_count, root_flow_run_id, process_id, durable)"
        " VALUES (:id, 'f', 'n', :state, 1, :ended, 1, :id, :process_id, :durable)",
        id=run_id, state=state, ended=ended, process_id=process.id, durable=durable,
    )  # fmt: skip


async def put_task_run(database: Any, key: int, number: int, state: str, ended: int | None = None) -> None:
    await database.fetch_text(
        "INSERT INTO task_runs (series, number, created, ended, state, run_count)"
        " VALUES (:series, :number, 1, :ended, :state, 1)",
        series=(key << SERIES_BITS) + 1, number=number, ended=ended, state=state,
    )  # fmt: skip


async def flow_runs(database: Any) -> dict[str, tuple[Any, ...]]:
    rows = await database.fetch_text("SELECT id, state, state_name, message, ended, crashes FROM flow_runs ORDER BY id")
    return {run_id: tuple(rest) for run_id, *rest in rows}


async def look_for(database: Database, seconds: float) -> list[str]:
    """Look as often as one who watches does for so long, however long each look takes."""
    observer, pause = Observer(database), LEASE_SECONDS / liveness.LOOKS_PER_LEASE
    lost = await observer.look()
    for _ in range(round(seconds / pause)):
        await asyncio.sleep(pause)
        lost += await observer.look()
    return lost


# --- what becomes of the runs -------------------------------------------------------------------------------------


def test_all_that_a_dead_process_had_under_way_is_crashed_and_says_why(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        database, dead, other = store.database, gone(), foreign()
        key = await register(database, dead)
        other_key = await register(database, other)
        await put_flow_run(database, "a", dead)
        await put_flow_run(database, "b", dead, state="COMPLETED", ended=5)
        await put_flow_run(database, "c", dead, state="CANCELLING")
        await put_flow_run(database, "d", other)
        for number, state in enumerate(("RUNNING", "PENDING", "SCHEDULED", "PAUSED")):
            await put_task_run(database, key, number, state)
        await put_task_run(database, key, 8, "COMPLETED", 5)
        await put_task_run(database, key, 9, "FAILED", 5)
        await put_task_run(database, other_key, 1, "RUNNING")
        assert await Observer(database).look() == ["gone"]
        runs = await flow_runs(database)
        state, name, message, ended, crashes = runs["a"]
        assert (state, name, crashes) == ("CRASHED", None, 1)
        assert ended > 1_000_000
        assert message == died(dead)
        assert [runs[run_id][0] for run_id in "bcd"] == ["COMPLETED", "CANCELLED", "RUNNING"]
        history = "SELECT flow_run_id, state, message FROM flow_run_states ORDER BY flow_run_id"
        assert await database.fetch_text(history) == [("a", "CRASHED", message), ("c", "CANCELLED", message)]
        tasks = await database.fetch_text("SELECT state, ended IS NULL FROM task_runs ORDER BY series, number")
        assert tasks == [*[("CRASHED", 0)] * 4, ("COMPLETED", 0), ("FAILED", 0), ("RUNNING", 1)]

    scenario(make_database, body)


def test_a_durable_flow_run_awaits_its_resume_until_it_has_crashed_too_often(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        database, dead = store.database, gone()
        for crash in range(1, liveness.DURABLE_MAX_CRASHES + 1):
            dead = gone(f"gone-{crash}")
            await register(database, dead)
            if crash == 1:
                await put_flow_run(database, "a", dead, durable=1)
            else:  # it was resumed
                resume = "UPDATE flow_runs SET state = 'RUNNING', process_id = :id WHERE ended IS NULL"
                await database.fetch_text(resume, id=dead.id)
            assert await Observer(database).look() == [dead.id]
            state, name, message, ended, crashes = (await flow_runs(database))["a"]
            assert crashes == crash
            if crash < liveness.DURABLE_MAX_CRASHES:
                assert (state, name, ended) == ("SCHEDULED", "AwaitingResume", None)
                what_to_do = "upwell.resume('a'), or `upwell flow-run resume a`, goes on where it stopped."
                assert message == f"{died(dead)} {what_to_do}"
        state, _, message, ended, _ = (await flow_runs(database))["a"]
        assert state == "CRASHED"
        assert ended
        assert message.startswith(f"{died(dead)} It has crashed 5 times")
        assert "UPWELL_DURABLE_MAX_CRASHES" in message
        assert len(await database.fetch_text("SELECT key FROM flow_run_states")) == 5

    scenario(make_database, body)


def test_what_a_dead_process_held_is_free(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        database, dead = store.database, gone()
        await register(database, dead)
        await database.fetch_text(
            "INSERT INTO leases (id, limit_name, process_id, slots, state, place, since)"
            " VALUES ('x', 'db', :id, 1, 'held', 0, 0)",
            id=dead.id,
        )
        await database.fetch_text(
            "INSERT INTO cache_locks (key, holder, process_id) VALUES ('k', 'h', :id)", id=dead.id
        )
        await Observer(database).look()
        assert await database.fetch_text("SELECT id FROM leases") == []
        assert await database.fetch_text("SELECT key FROM cache_locks") == []

    scenario(make_database, body)


def test_runs_that_a_process_left_when_it_ended_are_crashed_too(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        database, left = store.database, this_process(30.0)
        await register(database, left)
        await put_flow_run(database, "a", left)
        await database.fetch("end_process", id=left.id, seen=1)
        assert await Observer(database).look() == []
        state, _, message, *_ = (await flow_runs(database))["a"]
        assert (state, message) == ("CRASHED", f"The process {left.pid} on {NODE} ended before this had ended.")

    scenario(make_database, body)


# --- who is dead, and who is not ------------------------------------------------------------------------------------


def test_a_process_elsewhere_is_lost_only_after_it_was_watched_for_its_lease(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        database = store.database
        await register(database, foreign())
        await database.fetch_text("UPDATE processes SET lease_until = 2, seen = 2 - 200000 WHERE id = 'foreign'")
        observer = Observer(database)
        assert [await observer.look() for _ in range(2)] == [[], []]  # its lease ran out long ago
        assert await Observer(database).look() == []  # this one has not watched it
        assert await look_for(database, 2 * LEASE_SECONDS) == ["foreign"]

    scenario(make_database, body)


def test_who_was_away_declares_nobody_dead_before_what_was_spooled_can_have_come(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        gone = msgspec.structs.replace(this_process(LEASE_SECONDS), id="gone", pid_started="another one's")
        await register(store.database, gone)
        observer = Observer(store.database, patience_seconds=LEASE_SECONDS / 2)
        assert await observer.look() == []
        await asyncio.sleep(LEASE_SECONDS / 2)
        assert await observer.look() == ["gone"]

    scenario(make_database, body)


def test_time_in_which_the_observer_was_stopped_does_not_count(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        await register(store.database, foreign())
        observer = Observer(store.database)
        await observer.look()
        time.sleep(2 * LEASE_SECONDS)  # both may have been stopped, as when the machine was asleep
        assert await observer.look() == []

    scenario(make_database, body)


def test_a_process_elsewhere_that_renews_is_never_lost(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        alive, observer = foreign(), Observer(store.database)
        await register(store.database, alive)
        for _ in range(4 * liveness.LOOKS_PER_LEASE):
            assert await observer.look() == []
            await asyncio.sleep(LEASE_SECONDS / liveness.LOOKS_PER_LEASE)
            await store.renew(alive)

    scenario(make_database, body)


@pytest.mark.parametrize("day", [86_400, -86_400])
def test_a_clock_that_is_set_kills_nobody(
    make_database: MakeDatabase, day: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: SqlStore) -> None:
        await register(store.database, Process("long", ELSEWHERE, 1, "1", 30.0))
        await register(store.database, this_process(30.0))
        system = time.time
        monkeypatch.setattr(SystemClock, "time", staticmethod(lambda: system() + day))
        assert await look_for(store.database, 2 * LEASE_SECONDS) == []

    scenario(make_database, body)


def test_a_process_that_cannot_be_looked_at_for_now_is_not_taken_to_be_dead(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: SqlStore) -> None:
        await register(store.database, this_process(30.0))
        await register(store.database, Process("unseen", this_host(), os.getpid(), "", 30.0))

        def no_more_files(pid: int) -> str | None:
            raise OSError(24, "Too many open files")

        assert await Observer(store.database).look() == []
        monkeypatch.setattr(processes, "started_at", no_more_files)
        assert await Observer(store.database).look() == []

    scenario(make_database, body)


def test_a_process_of_this_machine_before_it_was_started_anew_is_lost_at_once(tmp_path: Path) -> None:
    """Of a SQLite file, which machines cannot share; elsewhere two machines may have the same name."""

    async def body(store: SqlStore) -> None:
        await register(store.database, foreign("before", f"{NODE}/another-boot/4026531836"))
        await register(store.database, foreign("another", "another-machine/another-boot/4026531836"))
        assert await Observer(store.database).look() == ["before"]

    scenario(lambda: SqliteDatabase(tmp_path / "store.db"), body)


def test_exactly_one_of_many_observers_declares_a_process_lost(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        dead = gone()
        await register(store.database, dead)
        await put_flow_run(store.database, "a", dead)
        databases = [make_database() for _ in range(4)]
        for database in databases:
            await database.open()
        lost = await asyncio.gather(*(Observer(database).look() for database in databases))
        for database in databases:
            await database.close()
        assert sorted(lost) == [[], [], [], ["gone"]]
        assert len(await store.database.fetch_text("SELECT key FROM flow_run_states")) == 1

    scenario(make_database, body)


def test_who_starts_looks_at_least_once_however_short_it_lives() -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1

    async def main() -> None:
        watching = asyncio.create_task(watch_over(look, 30.0))
        await asyncio.sleep(0)
        watching.cancel()
        await asyncio.wait([watching])

    asyncio.run(main())
    assert looks == 1


# --- those who were declared dead, and are not --------------------------------------------------------------------


def test_a_process_that_was_declared_dead_can_write_and_renew_nothing(make_database: MakeDatabase) -> None:
    async def body(store: SqlStore) -> None:
        zombie = foreign()
        await register(store.database, zombie)
        await put_flow_run(store.database, "a", zombie)
        await look_for(store.database, 2 * LEASE_SECONDS)
        with pytest.raises(ProcessLost):
            await store.write(Batch(zombie.id, 1, flow_run_states=[("a", 1, "COMPLETED", None, None)]))
        with pytest.raises(ProcessLost):
            await store.renew(zombie)
        with pytest.raises(ProcessLost):
            await store.open(zombie)
        await store.database.fetch("end_process", id=zombie.id, seen=1)
        assert await store.database.fetch("process_state", id=zombie.id) == [("lost",)]
        assert (await flow_runs(store.database))["a"][0] == "CRASHED"

    scenario(make_database, body)


def test_what_is_being_written_while_the_writer_is_declared_dead_is_seen_to(make_database: MakeDatabase) -> None:
    """Either it is written before, and crashed; or it comes too late, and is refused."""

    async def body(store: SqlStore) -> None:
        zombie, database = gone(), make_database()
        await database.open()
        await register(store.database, zombie)
        async with store.database.transaction() as session:
            assert await session.fetch("mark_written", id=zombie.id, number=1, ends=0)
            await put_flow_run(session, "late", zombie)
            looking = asyncio.create_task(Observer(database).look())
            await asyncio.sleep(0.1)
            assert not looking.done()
        assert await looking == ["gone"]
        await database.close()
        assert (await flow_runs(store.database))["late"][0] == "CRASHED"

    scenario(make_database, body)
