"""What whoever keeps a store does by hand: measure it, copy it, make it small."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from upwell.core.errors import ConfigurationError
from upwell.journal.database import Database
from upwell.journal.maintenance import back_up, problems_in, size_of, upgrade, vacuum
from upwell.journal.migrations import migrate
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sql import migrations
from upwell.journal.sqlite import SqliteDatabase


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Database]:
    """Makes the database, not opened."""
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / "store.db")
    url: str = request.getfixturevalue("postgres_url")
    return lambda: PostgresDatabase(url)


def test_a_store_is_brought_up_to_date_measured_and_made_small(make: Callable[[], Database]) -> None:
    async def scenario() -> None:
        database = make()
        await database.open()
        try:
            steps = migrations(database.dialect)
            assert await upgrade(database) == [f"{step.number:04} {step.name}" for step in steps]
            assert await upgrade(database) == []
            size = await size_of(database, with_tables=True)
            assert (size.schema, size.flow_runs, size.task_runs) == (steps[-1].number, 0, 0)
            assert size.bytes > 0
            assert {"flow_runs", "task_runs"} <= {table.name for table in size.tables}
            before, after = await vacuum(database)
            assert before > 0 < after
            assert await problems_in(database) == []
        finally:
            await database.close()

    asyncio.run(scenario())


def test_a_copy_is_made_while_others_write_and_never_over_a_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        database, other = SqliteDatabase(tmp_path / "store.db"), SqliteDatabase(tmp_path / "store.db")
        await database.open()
        await other.open()
        try:
            await migrate(database)
            async with other.transaction() as session:
                await session.fetch_text("INSERT INTO chores (name, process_id, until) VALUES ('x', 'y', 1)")
                await back_up(database, tmp_path / "copy.db")
            with pytest.raises(ConfigurationError, match="never writes over one"):
                await back_up(database, tmp_path / "copy.db")
            await back_up(database, tmp_path / "later.db")
        finally:
            await other.close()
            await database.close()

    asyncio.run(scenario())
    assert [chores_in(tmp_path / name) for name in ("copy.db", "later.db")] == [0, 1]
    assert sorted(path.name for path in tmp_path.glob("*.partial")) == []


def chores_in(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM chores").fetchone()[0])
    finally:
        connection.close()


def test_a_copy_of_postgres_is_made_by_its_own_means() -> None:
    with pytest.raises(ConfigurationError, match="pg_dump"):
        asyncio.run(back_up(PostgresDatabase("postgresql://u:secret@host/name"), Path("/tmp/never")))


def test_what_is_damaged_is_found(tmp_path: Path) -> None:
    async def problems() -> list[str]:
        database = SqliteDatabase(tmp_path / "store.db")
        await database.open()
        try:
            return await problems_in(database)
        finally:
            await database.close()

    async def made() -> None:
        database = SqliteDatabase(tmp_path / "store.db")
        await database.open()
        await migrate(database)
        await database.close()

    asyncio.run(made())
    assert asyncio.run(problems()) == []
    with (tmp_path / "store.db").open("r+b") as file:
        file.seek(8192 * 3)
        file.write(b"\x00" * 8192 * 4)
    assert asyncio.run(problems()) != []
