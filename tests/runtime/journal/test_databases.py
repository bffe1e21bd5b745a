"""Every database keeps the promises of the seam."""

from __future__ import annotations

from pathlib import Path

import pytest

from upwell.journal.database import Database
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sqlite import MemoryDatabase, SqliteDatabase
from upwell.testing.databases import DatabaseConformance


class TestSqliteFile(DatabaseConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store.db"

    def make_database(self) -> Database:
        return SqliteDatabase(self.path)


class TestSqliteFileThatSurvivesThePower(TestSqliteFile):
    def make_database(self) -> Database:
        return SqliteDatabase(self.path, "FULL")


class TestMemory(DatabaseConformance):
    @pytest.fixture(autouse=True)
    def _one(self) -> None:
        self.one = MemoryDatabase()

    def make_database(self) -> Database:
        return MemoryDatabase(beside=self.one)


class TestPostgres(DatabaseConformance):
    @pytest.fixture(autouse=True)
    def _url(self, postgres_url: str) -> None:
        self.url = postgres_url

    def make_database(self) -> Database:
        return PostgresDatabase(self.url)
