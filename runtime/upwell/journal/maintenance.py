"""What whoever keeps a store does by hand: how large is it, copy it, make it small again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from msgspec import Struct

from upwell.core.errors import ConfigurationError
from upwell.journal.database import Database, StoreDamaged
from upwell.journal.migrations import migrate
from upwell.journal.sql import Dialect, migrations
from upwell.journal.sqlite import SqliteDatabase

_SIDE_FILES: Final = ("-wal", "-shm")


class TableSize(Struct, frozen=True, kw_only=True):
    """How much one table takes, its indexes included. rows: in PostgreSQL as it estimates them."""

    name: str
    rows: int
    bytes: int


class StoreSize(Struct, frozen=True, kw_only=True):
    """How much a store takes.

    place: where it is. schema: the number of the last step of its schema. bytes: all of it.
    free_bytes: of these, what a SQLite file keeps for what comes next.
    """

    place: str
    schema: int
    flow_runs: int
    task_runs: int
    bytes: int
    free_bytes: int
    tables: tuple[TableSize, ...] = ()


async def upgrade(database: Database) -> list[str]:
    """Bring the schema up to date; the names of the steps that were applied."""
    applied = set(await migrate(database))
    return [f"{step.number:04} {step.name}" for step in migrations(database.dialect) if step.number in applied]


async def size_of(database: Database, *, with_tables: bool = False) -> StoreSize:
    """How much there is. with_tables: by table, for which SQLite reads the whole file."""
    [[flow_runs, task_runs, schema]] = await database.fetch("count_store")
    if isinstance(database, SqliteDatabase):
        taken, free = await _file_size(database)
        tables = await database.fetch_text(_SQLITE_TABLES) if with_tables else []
        counted = [(name, await _rows_of(database, name), size) for name, size in tables]
    else:
        [[taken]] = await database.fetch_text("SELECT pg_database_size(current_database())")
        free, counted = 0, []
        if with_tables:
            counted = [(str(name), int(rows), int(size)) for name, rows, size in await database.fetch_text(_PG_TABLES)]
    return StoreSize(
        place=database.place,
        schema=schema,
        flow_runs=flow_runs,
        task_runs=task_runs,
        bytes=int(taken),
        free_bytes=free,
        tables=tuple(TableSize(name=name, rows=rows, bytes=size) for name, rows, size in counted),
    )


_SQLITE_TABLES: Final = (
    "SELECT m.tbl_name, sum(s.pgsize) AS bytes FROM dbstat s JOIN sqlite_master m ON m.name = s.name "
    "WHERE s.aggregate = TRUE GROUP BY m.tbl_name ORDER BY bytes DESC"
)
_PG_TABLES: Final = (
    "SELECT relname, greatest(reltuples, 0)::bigint, pg_total_relation_size(oid) FROM pg_class "
    "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace ORDER BY 3 DESC"
)


async def back_up(database: Database, to: Path) -> int:
    """Copy a SQLite store into a new file, as it is at one moment, while others use it; the bytes of the copy.

    Raises:
        ConfigurationError: it is no SQLite file, or there is a file already.
        StoreError: it cannot be written.
    """
    if not isinstance(database, SqliteDatabase):
        raise ConfigurationError(f"{database.place} is backed up with PostgreSQL's own means: `pg_dump`.")
    partial = _empty_beside(to)
    try:
        await database.fetch_text("VACUUM INTO :path", path=str(partial))  # an empty file is filled, as it is
        return _put_in_place(partial, to)
    finally:
        partial.unlink(missing_ok=True)


def _empty_beside(to: Path) -> Path:
    """An empty file for the copy, for its owner only."""
    if to.exists():
        raise ConfigurationError(f"There is a file {to} already; a backup never writes over one.")
    partial = to.with_name(f"{to.name}.partial")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise ConfigurationError(f"The backup {to} cannot be written: {error.strerror or error}.") from error
    return partial


def _put_in_place(partial: Path, to: Path) -> int:
    """Give the copy its name, unless somebody has it by now; its bytes."""
    try:
        os.link(partial, to)
    except FileExistsError:
        raise ConfigurationError(f"There is a file {to} by now; a backup never writes over one.") from None
    except OSError:  # the file system has no links
        partial.replace(to)
    return to.stat().st_size


async def vacuum(database: Database) -> tuple[int, int]:
    """Give back what is free, and put together what belongs together; the bytes before and after.

    Who writes to a SQLite file meanwhile waits.
    """
    before = (await size_of(database)).bytes
    if database.dialect is Dialect.SQLITE:
        await database.fetch_text("VACUUM")
        await database.fetch_text("PRAGMA wal_checkpoint(TRUNCATE)")
    else:
        await database.fetch_text("VACUUM (ANALYZE)")
    return before, (await size_of(database)).bytes


async def problems_in(database: Database) -> list[str]:
    """What SQLite finds damaged in its file; nothing where all is well, and elsewhere."""
    if database.dialect is not Dialect.SQLITE:
        return []
    try:
        rows = await database.fetch_text("PRAGMA quick_check(10)")
    except StoreDamaged as error:  # so much that it cannot even be looked through
        return [str(error)]
    return [str(text) for (text,) in rows if text != "ok"]


async def _file_size(database: SqliteDatabase) -> tuple[int, int]:
    [[page]] = await database.fetch_text("PRAGMA page_size")
    [[free]] = await database.fetch_text("PRAGMA freelist_count")
    files = [database.path, *(database.path.with_name(database.path.name + suffix) for suffix in _SIDE_FILES)]
    return sum(file.stat().st_size for file in files if file.exists()), int(free) * int(page)


async def _rows_of(database: Database, table: str) -> int:
    """table: as the database itself has named it."""
    quoted = table.replace('"', '""')
    [[rows]] = await database.fetch_text(f'SELECT count(*) FROM "{quoted}"')
    return int(rows)


__all__ = ["StoreSize", "TableSize", "back_up", "problems_in", "size_of", "upgrade", "vacuum"]
