"""What is old is removed, whole and in small steps; what is not stays."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.journal.conftest import MakeDatabase
from tests.runtime.journal.writing import TABLES

from upwell.journal.database import Database
from upwell.journal.migrations import migrate
from upwell.journal.retention import DAY_SECONDS, Limits, micros, tidy
from upwell.journal.sql import BulkInsert, Dialect, bulk_insert_of
from upwell.journal.sqlite import MemoryDatabase, SqliteDatabase

NOW = time.time()
TRIES = 3  # for others may want the machine just then


def days_ago(days: float) -> int:
    return micros(NOW - days * DAY_SECONDS)


async def opened(database: Database) -> Database:
    await database.open()
    await migrate(database)
    return database


async def add_flow_run(
    database: Database, name: str, days: float, *, runs: int = 3, state: str = "COMPLETED", **others: Any
) -> None:
    """A flow run with task runs, and something of all that can hang on them."""
    at, ended = days_ago(days), None if state in ("RUNNING", "PAUSED") else days_ago(days)
    values = {"parent": None, "durable": 0, "result": None, **others}
    key = abs(hash(name)) % 2**40 if name else 0
    async with database.transaction() as session:
        await session.fetch_text(
            "INSERT INTO flow_runs (id, flow, name, state, created, ended, run_count, root_flow_run_id, process_id,"
            " parent_flow_run_id, durable, result)"
            " VALUES (:id, 'f', :id, :state, :at, :ended, 1, :id, 'p', :parent, :durable, :result)",
            id=name, state=state, at=at, ended=ended, **values,
        )  # fmt: skip
        await session.insert("put_flow_run_states", [(name, at, "RUNNING", None, None)])
        series = (key, name, "t", name, at, None, None, runs, "p")
        columns = "key, base, task, flow_run_id, created, tags, source, submitted, process_id"
        kinds = ["INTEGER", "TEXT", "TEXT", "TEXT", "INTEGER", "TEXT", "BLOB", "INTEGER", "TEXT"]
        await session.insert(bulk(database, "series", columns, kinds), [series])
        await session.insert("put_completed_runs", [(key, n, at, at, at, f"x={n}") for n in range(runs)])
        await session.insert("put_task_run_states", [(key, n, at, "RUNNING", None, None) for n in range(runs)])
        await session.insert("put_edges", [(key, n, key, n, "x") for n in range(runs)])
        await session.insert("put_results", [(key, n, b"record", None) for n in range(runs)])
        await session.insert("put_logs", [(name, "task-run", at, 20, "test", "line") for _ in range(runs)])


def bulk(database: Database, table: str, columns: str, kinds: list[str]) -> BulkInsert:
    text = f"INSERT INTO {table} ({columns}) VALUES :rows({columns})"
    return bulk_insert_of(text, dict(zip(columns.split(", "), kinds, strict=True)), database.dialect)


async def names(database: Database) -> list[str]:
    return [str(name) for (name,) in await database.fetch_text("SELECT id FROM flow_runs ORDER BY id")]


async def counts(database: Database) -> dict[str, int]:
    return {table: (await database.fetch_text(f"SELECT count(*) FROM {table}"))[0][0] for table in TABLES}


def test_old_runs_go_with_everything_that_hangs_on_them_and_newer_ones_stay(make_database: MakeDatabase) -> None:
    async def main() -> None:
        database = await opened(make_database())
        await add_flow_run(database, "new", 29, runs=700)
        before = await counts(database)
        await add_flow_run(database, "old", 31, runs=700, result=b"of the flow")
        assert await tidy(database, "p", Limits(days=30)) >= 700
        assert await counts(database) == before
        assert await names(database) == ["new"]
        assert await database.fetch_text("SELECT * FROM chores WHERE name = 'retention'") == []
        await database.close()

    asyncio.run(main())


CONFIGURED = (
    "deployments", "schedules", "limits", "variables", "blocks", "automations", "work_pools", "work_queues", "api_keys",
    "schema_migrations", "chores",
)  # fmt: skip  # what people have set up, or what there are but a few of


def test_every_table_is_what_people_set_up_or_gets_empty_with_age(make_database: MakeDatabase) -> None:
    async def main() -> None:
        database = await opened(make_database())
        await add_flow_run(database, "old", 400)
        await add_flow_run(database, "new", 1)
        kept = await counts_of_all(database)
        for table, rows in kept.items():
            if not rows:
                await add_old_row(database, table)
            if table not in CONFIGURED:
                kept[table] = rows // 2  # the other half is of the old one
            elif not rows:
                kept[table] = 1
        kept["chores"] += 1  # when it was done last
        filled = await counts_of_all(database)
        assert all(filled.values()), "this test fills every table"
        for _ in range(2):
            await tidy(database, "p", Limits(days=30, audit_days=365))
        assert await counts_of_all(database) == kept
        await database.close()

    asyncio.run(main())


async def counts_of_all(database: Database) -> dict[str, int]:
    if database.dialect is Dialect.SQLITE:
        text = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    else:
        text = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    tables = sorted(str(name) for (name,) in await database.fetch_text(text))
    return {table: (await database.fetch_text(f"SELECT count(*) FROM {table}"))[0][0] for table in tables}


async def add_old_row(database: Database, table: str) -> None:
    """A row whose times are 400 days ago, of the old flow run, and of a process that is gone."""
    at = days_ago(400)
    if database.dialect is Dialect.SQLITE:
        found = await database.fetch_text(f"SELECT name, type, \"notnull\" FROM pragma_table_info('{table}')")
        columns = [(str(name), str(kind)) for name, kind, needed in found if needed or name == "key"]
    else:
        found = await database.fetch_text(
            "SELECT column_name, data_type FROM information_schema.columns"
            f" WHERE table_name = '{table}' AND is_nullable = 'NO'"
        )
        columns = [(str(name), str(kind).upper()) for name, kind in found]
    said: dict[str, Any] = {"state": "ended", "flow_run_id": "old"}
    of_kind: dict[str, Any] = {"BLOB": b"x", "BYTEA": b"x", "TEXT": "x"}
    values = {name: said.get(name, of_kind.get(kind, 1 if name == "key" else at)) for name, kind in columns}
    async with database.transaction() as session:
        names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        await session.fetch_text(f"INSERT INTO {table} ({names}) VALUES ({places})", **values)


def test_what_has_not_finished_or_may_be_resumed_stays_with_all_around_it(make_database: MakeDatabase) -> None:
    async def main() -> None:
        database = await opened(make_database())
        await add_flow_run(database, "running", 100, state="RUNNING")
        await add_flow_run(database, "paused", 100, state="PAUSED")
        await add_flow_run(database, "to resume", 100, state="CRASHED", durable=1)
        await add_flow_run(database, "parent of running", 100)
        await add_flow_run(database, "child that runs", 99, state="RUNNING", parent="parent of running")
        before = await counts(database)
        await add_flow_run(database, "crashed", 100, state="CRASHED")
        await add_flow_run(database, "durable", 100, durable=1)
        await add_flow_run(database, "parent", 100)
        await add_flow_run(database, "child", 1, parent="parent")
        await tidy(database, "p", Limits(days=30, rows=1, size=1))
        assert await counts(database) == before
        await database.close()

    asyncio.run(main())


def test_of_too_many_runs_the_oldest_go(make_database: MakeDatabase) -> None:
    async def main() -> None:
        database = await opened(make_database())
        for day in range(1, 11):
            await add_flow_run(database, f"day {day:02}", day, runs=10)
        await tidy(database, "p", Limits(rows=55))
        assert await names(database) == [f"day {day:02}" for day in range(1, 6)]
        await tidy(database, "p", Limits(days=0, rows=None, size=None))
        assert len(await names(database)) == 5
        await database.close()

    asyncio.run(main())


def test_a_file_that_is_too_large_becomes_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.journal.retention.VACUUM_SECONDS", 1000.0)  # however slow the disk is

    async def main() -> None:
        path = tmp_path / "store.db"
        database = await opened(SqliteDatabase(path))
        for day in range(1, 41):
            await add_flow_run(database, f"day {day:02}", day, runs=1000)
        await database.fetch_text("PRAGMA wal_checkpoint(TRUNCATE)")
        size = path.stat().st_size
        await tidy(database, "p", Limits(size=size // 2))
        await database.fetch_text("PRAGMA wal_checkpoint(TRUNCATE)")
        assert 0.2 * size < path.stat().st_size < 0.7 * size
        kept = await names(database)
        assert kept == [f"day {day:02}" for day in range(1, len(kept) + 1)]
        assert await database.fetch_text("PRAGMA integrity_check") == [("ok",)]
        await database.close()

    asyncio.run(main())


def test_task_runs_outside_of_flows_go_by_their_age_even_where_their_service_goes_on(
    make_database: MakeDatabase,
) -> None:
    async def main() -> None:
        database = await opened(make_database())
        async with database.transaction() as session:
            kinds = ["INTEGER", "TEXT", "TEXT", "INTEGER", "INTEGER", "TEXT"]
            insert = bulk(database, "series", "key, base, task, created, submitted, process_id", kinds)
            await session.insert(
                insert, [(1, "a", "t", days_ago(100), 300, "p"), (2, "b", "t", days_ago(100), 9, "gone")]
            )
            runs = [(1, n, days_ago(100 - n / 3), 1, 1, None) for n in range(300)]
            await session.insert("put_completed_runs", [*runs, *((2, n, days_ago(99), 1, 1, None) for n in range(9))])
            await session.insert("put_logs", [(None, "run", days_ago(100 - n / 3), 20, "l", "m") for n in range(300)])
            await session.fetch_text(
                "INSERT INTO processes (id, host, pid, pid_started, state, beat, seen, lease_until)"
                " VALUES ('p', '', 1, '', 'alive', 1, 1, 1)"
            )
        await tidy(database, "p", Limits(days=30))
        assert await database.fetch_text("SELECT series, count(*), min(number) FROM task_runs GROUP BY series") == [
            (1, 89, 211)
        ]
        assert await database.fetch_text("SELECT key FROM series") == [(1,)]
        assert await database.fetch_text("SELECT count(*) FROM logs") == [(89,)]
        await database.close()

    asyncio.run(main())


def test_expired_cache_records_and_processes_of_which_nothing_is_left_go(make_database: MakeDatabase) -> None:
    async def main() -> None:
        database = await opened(make_database())
        async with database.transaction() as session:
            for name, expires in (("expired", days_ago(1)), ("not yet", days_ago(-1)), ("never", None)):
                await session.fetch_text(
                    "INSERT INTO cache_records (key, task, record, created, expires)"
                    " VALUES (:key, 't', :record, 1, :expires)",
                    key=name, record=b"r", expires=expires,
                )  # fmt: skip
            for name, state, seen in (("old", "ended", 9), ("lost", "lost", 9), ("new", "ended", 0), ("p", "alive", 9)):
                await session.fetch_text(
                    "INSERT INTO processes (id, host, pid, pid_started, state, beat, seen, lease_until)"
                    " VALUES (:id, '', 1, '', :state, 1, :seen, 1)",
                    id=name, state=state, seen=days_ago(seen),
                )  # fmt: skip
        await tidy(database, "p", Limits())
        assert await database.fetch_text("SELECT key FROM cache_records ORDER BY key") == [("never",), ("not yet",)]
        assert await database.fetch_text("SELECT id FROM processes ORDER BY id") == [("new",), ("p",)]
        await database.close()

    asyncio.run(main())


def test_one_process_at_a_time_does_it(make_database: MakeDatabase) -> None:
    async def main() -> None:
        database = await opened(make_database())
        await add_flow_run(database, "old", 31)
        async with database.transaction() as session:
            await session.fetch("take_chore", name="retention", process_id="other", until=days_ago(-1), now=days_ago(0))
        assert await tidy(database, "p", Limits(days=30)) == 0
        assert await names(database) == ["old"]
        async with database.transaction() as session:
            await session.fetch_text("UPDATE chores SET until = :past", past=days_ago(1))  # it died meanwhile
        assert await tidy(database, "p", Limits(days=30)) > 0
        await database.close()

    asyncio.run(main())


def test_no_step_holds_the_write_lock_for_long_and_writers_go_on(tmp_path: Path) -> None:
    def are_short(waits: list[float]) -> bool:
        """SQLite itself looks only every 0.1 s whether its turn has come."""
        return len(waits) > 20 and waits[len(waits) // 2] < 0.05 and waits[int(len(waits) * 0.95)] < 0.15

    assert any(are_short(waits_beside_retention(tmp_path / f"{n}.db")) for n in range(TRIES))


def waits_beside_retention(path: Path) -> list[float]:
    """For how long a writer had to wait each time, from the shortest on, while much was removed."""
    waits: list[float] = []
    done = threading.Event()

    def write() -> None:
        other = sqlite3.connect(path, isolation_level=None, timeout=10)
        while not done.is_set():
            began = time.perf_counter()
            other.execute("BEGIN IMMEDIATE")
            waits.append(time.perf_counter() - began)
            other.execute("INSERT INTO logs (at, level, logger, message) VALUES (1, 1, '', '')")
            other.execute("COMMIT")
            time.sleep(0.002)
        other.close()

    async def main() -> None:
        database = await opened(SqliteDatabase(path))
        await add_flow_run(database, "large", 31, runs=30_000)
        for n in range(200):
            await add_flow_run(database, f"small {n}", 31)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert await tidy(database, "p", Limits(days=30)) >= 30_000
        finally:
            done.set()
            writer.join()
            await database.close()

    asyncio.run(main())
    return sorted(waits)


@pytest.mark.parametrize("limit", [Limits(), Limits(0, 0, 0)])
def test_without_limits_everything_stays(limit: Limits) -> None:
    async def main() -> None:
        database = await opened(MemoryDatabase())
        await add_flow_run(database, "old", 10_000)
        await tidy(database, "p", limit)
        assert await names(database) == ["old"]

    asyncio.run(main())
