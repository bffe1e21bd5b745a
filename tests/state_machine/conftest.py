"""The stores that the machine works on: each time an empty one, that any number of processes can open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.postgres import PostgresServer
from tests.state_machine.test_state_machine import NewStore

from upwell.journal.database import Database
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sqlite import MemoryDatabase, SqliteDatabase


@pytest.fixture
def stores_in_memory() -> NewStore:
    def new_store() -> Callable[[], Database]:
        first = MemoryDatabase()
        return lambda: MemoryDatabase(beside=first)

    return new_store


@pytest.fixture
def stores_in_files(tmp_path: Path) -> NewStore:
    paths = (tmp_path / f"{number}.db" for number in count())

    def new_store() -> Callable[[], Database]:
        path = next(paths)
        return lambda: SqliteDatabase(path, in_this_thread=True)

    return new_store


@pytest.fixture
def stores_in_postgres(postgres: PostgresServer) -> Iterator[NewStore]:
    with postgres.database() as url:

        def new_store() -> Callable[[], Database]:
            asyncio.run(_empty(url))
            return lambda: PostgresDatabase(url)

        yield new_store


async def _empty(url: str) -> None:
    """Remove all rows: a new database for each example would take longer than the example."""
    import asyncpg

    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (name,) in tables:
            if name != "schema_migrations":
                await connection.execute(f"DELETE FROM {name}")
    finally:
        await connection.close()
