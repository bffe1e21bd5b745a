"""What the tests of the journal share: databases, of both kinds, that are empty at first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.postgres import NoPostgres, PostgresServer, postgres_server

from upwell.journal.database import Database
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sqlite import SqliteDatabase

MakeDatabase = Callable[[], Database]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for the whole session, started for the first test that needs it."""
    try:
        with postgres_server() as server:
            yield server
    except NoPostgres as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A new, empty database on it."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> MakeDatabase:
    """Makes a database that is not open yet; always the same one, empty at first."""
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / "store.db")
    url: str = request.getfixturevalue("postgres_url")
    return lambda: PostgresDatabase(url)
