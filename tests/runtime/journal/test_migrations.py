"""A store of any version is brought to this one, once, in place; or is left as it was."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from upwell.journal.database import Database, Row, StoreDamaged, StoreTooNew, StoreUnavailable
from upwell.journal.migrations import migrate
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sql import Dialect, Migration, migrations, schema_in_words_of
from upwell.journal.sqlite import MemoryDatabase, SqliteDatabase

STORES: Final = Path(__file__).parent / "stores"
VERSIONS: Final = sorted(int(path.name.split(".")[0]) for path in STORES.glob("*.db.gz"))
HEAD: Final = migrations(Dialect.SQLITE)[-1].number
ALL_STEPS: Final = list(range(1, HEAD + 1))

MakeDatabase = Callable[[], Database]
Keep = Callable[[int], None]


def migrating(program: str, database: Database, *numbers: int) -> Any:
    """Run a program of `migrating.py` on this database."""
    place = database._url if isinstance(database, PostgresDatabase) else str(database.path)  # type: ignore[attr-defined]  # pyright: ignore
    command = [sys.executable, str(Path(__file__).parent / "migrating.py"), program, place, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def on(database: Database, work: Callable[[Database], Any]) -> Any:
    """Do this with the database open."""

    async def main() -> Any:
        await database.open()
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(main())


async def ledger(database: Database) -> list[int]:
    """The steps that the store says were applied to it."""
    return [number for (number,) in await database.fetch_text("SELECT number FROM schema_migrations ORDER BY number")]


async def everything(database: Database) -> dict[str, dict[str, list[Any]]]:
    """All that is in the store: tables, columns, values."""
    if database.dialect is Dialect.SQLITE:
        columns = (
            "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c WHERE t.type = 'table'"
        )
    else:
        columns = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    found: dict[str, dict[str, list[Any]]] = {}
    for table, column in await database.fetch_text(columns):
        if not table.startswith("sqlite_") and table != "schema_migrations":
            rows = await database.fetch_text(f"SELECT {column} FROM {table} ORDER BY 1")
            found.setdefault(table, {})[column] = [value for (value,) in rows]
    return found


async def schema(database: Database) -> list[Any]:
    """What the schema is, as the database tells it."""
    if database.dialect is Dialect.SQLITE:
        return await database.fetch_text("SELECT name, sql FROM sqlite_master ORDER BY name")
    return await database.fetch_text(
        "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity, collation_name"
        " FROM information_schema.columns WHERE table_schema = 'public' UNION ALL"
        " SELECT tablename, indexname, indexdef, '', '', '', '' FROM pg_indexes"
        " WHERE schemaname = 'public' ORDER BY 1, 2"
    )


@pytest.fixture
def keep(make_database: MakeDatabase, tmp_path: Path) -> Keep:
    """Puts the store that was kept of a version in the place of the database."""

    def put(version: int) -> None:
        database = make_database()
        if isinstance(database, SqliteDatabase):
            database.path.write_bytes(gzip.decompress((STORES / f"{version:04}.db.gz").read_bytes()))
        else:
            asyncio.run(load((STORES / f"{version:04}.sql").read_text()))

    async def load(dump: str) -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(make_database()._url)  # type: ignore[attr-defined]  # pyright: ignore
        await connection.execute(dump)
        await connection.close()

    return put


# --- which steps ------------------------------------------------------------------------------------------------


def test_a_new_store_gets_all_steps_and_the_next_open_none(make_database: MakeDatabase) -> None:
    assert on(make_database(), migrate) == ALL_STEPS
    assert on(make_database(), migrate) == []
    assert on(make_database(), ledger) == ALL_STEPS
    assert on(MemoryDatabase(), migrate) == ALL_STEPS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_of_every_release_is_upgraded_in_place_with_its_data(
    make_database: MakeDatabase, keep: Keep, version: int
) -> None:
    keep(version)
    before = on(make_database(), everything)
    assert all(len(values) == 3 for columns in before.values() for values in columns.values())
    assert on(make_database(), migrate) == ALL_STEPS[version:]
    after = on(make_database(), everything)
    for table in before.keys() & after.keys():
        for column in before[table].keys() & after[table].keys():
            assert after[table][column] == before[table][column], f"{table}.{column}"
    assert on(make_database(), ledger) == ALL_STEPS


def test_an_upgraded_store_is_like_a_new_one_and_a_released_step_is_never_edited(
    make_database: MakeDatabase, keep: Keep, tmp_path: Path
) -> None:
    assert VERSIONS[-1] == HEAD, f"keep a store of schema {HEAD}: python {STORES / 'make.py'}"
    keep(VERSIONS[-1])
    kept = on(make_database(), schema)
    database = make_database()
    if isinstance(database, SqliteDatabase):
        database.path.unlink()
    else:
        on(database, lambda it: it.fetch_text("DROP SCHEMA public CASCADE"))
        on(database, lambda it: it.fetch_text("CREATE SCHEMA public"))
    on(make_database(), migrate)
    assert on(make_database(), schema) == kept, (
        "a step was edited: add another one, or keep a store anew if not released"
    )


def test_steps_to_come_are_applied_to_the_store_of_this_version(make_database: MakeDatabase, keep: Keep) -> None:
    keep(HEAD)
    database = make_database()
    note = schema_in_words_of(database.dialect, "ALTER TABLE variables ADD COLUMN note INTEGER DEFAULT 7")
    steps = [*migrations(database.dialect), Migration(HEAD + 1, "note", (note,))]
    before = on(make_database(), everything)
    assert on(make_database(), lambda it: migrate(it, steps)) == [HEAD + 1]
    assert on(make_database(), everything) == before | {"variables": before["variables"] | {"note": [7, 7, 7]}}


def test_a_newer_store_is_refused_by_its_number_and_not_touched(make_database: MakeDatabase, keep: Keep) -> None:
    keep(HEAD)
    add = "INSERT INTO schema_migrations (number, name, applied) VALUES (:n, 'to come', 0)"
    on(make_database(), lambda it: it.fetch_text(add, n=HEAD + 3))
    before = on(make_database(), everything), on(make_database(), schema)
    with pytest.raises(StoreTooNew, match=rf"newer upwell: its schema is {HEAD + 3}, .* knows {HEAD}\. Update upwell"):
        on(make_database(), migrate)
    assert (on(make_database(), everything), on(make_database(), schema)) == before


def test_a_step_that_fails_leaves_the_store_as_it_was(make_database: MakeDatabase, keep: Keep) -> None:
    keep(HEAD)
    before = on(make_database(), everything)
    good = Migration(HEAD + 1, "good", ("DELETE FROM variables",))
    bad = Migration(HEAD + 2, "bad", ("DELETE FROM series", "UPDATE nowhere SET a = 1"))
    with pytest.raises((sqlite3.OperationalError, asyncpg.UndefinedTableError), match="nowhere"):
        on(make_database(), lambda it: migrate(it, [*migrations(it.dialect), good, bad]))
    assert on(make_database(), everything) == before
    assert on(make_database(), migrate) == []


# --- many processes, and killed ones --------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_of_many_processes_exactly_one_migrates(make_database: MakeDatabase, keep: Keep, kept: bool) -> None:
    if kept:
        keep(HEAD)
    missing = [HEAD + 1, HEAD + 2] if kept else [*ALL_STEPS, HEAD + 1, HEAD + 2]
    processes = 32 if make_database().dialect is Dialect.SQLITE else 8
    applied = migrating("race", make_database(), processes)
    assert sorted(applied) == sorted([str(missing), *["[]"] * (processes - 1)])
    assert on(make_database(), ledger) == [*ALL_STEPS, HEAD + 1, HEAD + 2]


def test_a_process_killed_at_any_statement_leaves_the_old_version_usable(
    make_database: MakeDatabase, keep: Keep
) -> None:
    keep(HEAD)
    *killed, last = migrating("kill", make_database())
    assert len(killed) >= 12, "it is killed after each statement"
    old = [found for found in killed if found["left"].startswith("old")]
    assert [found["left"] for found in old] == ["old none"] * len(old)
    assert killed[: len(old)] == old
    assert len(killed) - len(old) <= 3, "only after the commit is it another version"
    assert all(found["left"].startswith("StoreTooNew") for found in [*killed[len(old) :], last])
    assert last["status"] == 0
    rows = on(make_database(), lambda it: it.fetch_text("SELECT DISTINCT value, note FROM variables"))
    assert rows == [("changed", 1)]


def test_a_process_killed_while_it_makes_a_store_leaves_nothing_half_made(make_database: MakeDatabase) -> None:
    stride = 1 if make_database().dialect is Dialect.SQLITE else 7
    *killed, last = migrating("kill", make_database(), stride)
    assert len(killed) * stride >= 40
    assert {found["left"] for found in killed if not found["left"].startswith("StoreTooNew")} == {"new"}
    assert last["status"] == 0
    assert on(make_database(), ledger) == [*ALL_STEPS, HEAD + 1, HEAD + 2]


# --- SQLite files ----------------------------------------------------------------------------------------------------


def test_a_file_is_its_owners_only_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "store.db"

    async def modes(database: Database) -> set[int]:
        await migrate(database)
        return {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    for mask in (0, 0o022):
        before = os.umask(mask)
        try:
            found = on(SqliteDatabase(path), modes)
        finally:
            os.umask(before)
        assert found == {0o600}, "with its log"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.unlink()


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    on(SqliteDatabase(tmp_path / "store.db"), migrate)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "store.db", tmp_path / "file" / "deep" / "store.db"):
        with pytest.raises(StoreUnavailable, match=r"cannot be opened: .*UPWELL_HOME or UPWELL_DATABASE_URL"):
            on(SqliteDatabase(path), migrate)


def test_a_file_that_cannot_be_written_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "upwell.db"
    on(SqliteDatabase(file), migrate)

    def access(path: Path, mode: int) -> bool:  # as even root sees it of a file system that is read only
        return path != file

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(StoreUnavailable, match=f"{file} cannot be opened: {file} cannot be written. Set UPWELL_HOME"):
        on(SqliteDatabase(file), migrate)


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        with pytest.raises(
            StoreUnavailable, match=f"The store {tmp_path} cannot be opened: Is a directory. Set UPWELL_HOME"
        ):
            await SqliteDatabase(tmp_path).open()
        assert set(threading.enumerate()) <= before, "its thread has ended while the loop is there"  # others' may end

    asyncio.run(main())


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("dear diary\n" * 1000)
    with pytest.raises(StoreDamaged, match=r"is no SQLite file: .*Move it away"):
        on(SqliteDatabase(path), migrate)
    assert path.read_text() == "dear diary\n" * 1000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_said_to_be_damaged(tmp_path: Path, part: float) -> None:
    path = tmp_path / "store.db"
    whole = gzip.decompress((STORES / f"{HEAD:04}.db.gz").read_bytes())
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(StoreDamaged, match="is damaged"):
        on(SqliteDatabase(path), migrate)


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    assert on(SqliteDatabase(tmp_path / "store.db"), migrate) == ALL_STEPS


def test_a_file_whose_journal_mode_another_process_is_just_changing_is_opened_all_the_same(tmp_path: Path) -> None:
    class InARace(SqliteDatabase):
        tries = 0

        async def run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
            self.tries += "journal_mode" in sql
            if self.tries in (1, 2):
                error = sqlite3.OperationalError("database is locked")  # SQLite says so at once, without waiting
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
                raise StoreUnavailable("The store is locked.") from error
            return await super().run(sql, values)

    database = InARace(tmp_path / "store.db")
    assert on(database, migrate) == ALL_STEPS
    assert database.tries == 3


def test_a_file_that_is_locked_for_long_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.journal.sqlite.BUSY_SECONDS", 0.05)
    path = tmp_path / "store.db"
    on(SqliteDatabase(path), migrate)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        on(SqliteDatabase(path), lambda it: it.fetch_text("DELETE FROM variables"))
    holder.execute("COMMIT")
    holder.close()
