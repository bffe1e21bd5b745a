"""Each test of a control is told to every kind of it: over SQLite, over PostgreSQL, through a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.postgres import PostgresServer
from tests.runtime.journal.control.worlds import OverDatabase, SetClock, World, in_this_process, in_world
from tests.runtime.journal.remote import through_a_server

from upwell.engine.clock import use_clock
from upwell.journal.database import Database
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sqlite import SqliteDatabase

_EMPTY_ALL = """DO $$ DECLARE one record; BEGIN
FOR one IN SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations'
LOOP EXECUTE format('DELETE FROM %I', one.name); END LOOP; END $$"""

Tell = Callable[[Callable[[World], Awaitable[Any]]], Any]


@pytest.fixture
def set_clock() -> Iterator[SetClock]:
    """A clock that is set by hand, in the place of the machine's."""
    clock = SetClock()
    before = use_clock(clock)
    try:
        yield clock
    finally:
        use_clock(before)


@pytest.fixture(scope="session")
def shared_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A database that is migrated once, for all tests here."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres", "server"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Database]:
    """Makes a database that is not open yet; always the same one, empty at first."""
    if request.param != "postgres":
        return lambda: SqliteDatabase(tmp_path / "store.db", in_this_thread=True)
    url: str = request.getfixturevalue("shared_postgres_url")
    server: PostgresServer = request.getfixturevalue("postgres")
    asyncio.run(server.execute(_EMPTY_ALL, urlsplit(url).path.strip("/")))
    return lambda: PostgresDatabase(url)


@pytest.fixture
def over(request: pytest.FixtureRequest) -> OverDatabase:
    """How a control is had for a database."""
    return through_a_server if request.node.callspec.params["make_database"] == "server" else in_this_process


@pytest.fixture
def tell(make_database: Callable[[], Database], over: OverDatabase, set_clock: SetClock) -> Tell:
    """Tells a story in a world of its own."""
    return lambda story: in_world(make_database, over, set_clock, story)
