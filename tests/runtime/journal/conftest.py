"""What the tests of the journal share: databases, of both kinds, that are empty at first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from upwell.journal.database import Database
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sqlite import SqliteDatabase

MakeDatabase = Callable[[], Database]


@pytest.fixture(params=["sqlite", "postgres"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> MakeDatabase:
    """Makes a database that is not open yet; always the same one, empty at first."""
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / "store.db")
    url: str = request.getfixturevalue("postgres_url")
    return lambda: PostgresDatabase(url)
