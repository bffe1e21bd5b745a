"""Keeps a store of the schema as it is now, with rows in every table: `python tests/runtime/journal/stores/make.py`.

Run it once for each step of the schema that is released, and keep what it writes here for ever: stores of every
release must upgrade.
"""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
ROWS: Final = 3


def main() -> None:
    """Write the store of this version in both kinds."""
    sys.path.insert(0, str(HERE.parents[3]))
    from tests.postgres import postgres_server

    from upwell.journal.postgres import PostgresDatabase
    from upwell.journal.sql import Dialect, migrations
    from upwell.journal.sqlite import SqliteDatabase

    head = migrations(Dialect.SQLITE)[-1].number
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        asyncio.run(fill(SqliteDatabase(path)))
        (HERE / f"{head:04}.db.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        tables = tables_of(path)
    with postgres_server() as server, server.database() as url:
        asyncio.run(fill(PostgresDatabase(url), tables))
        (HERE / f"{head:04}.sql").write_text(without_commands(server.dump(url)))


async def fill(database: Any, tables: dict[str, dict[str, str]] | None = None) -> None:
    """Make the schema, and put rows into every table of it."""
    from upwell.journal.migrations import migrate

    await database.open()
    await migrate(database)
    for table, columns in (tables or tables_of(database.path)).items():
        for number in range(1, ROWS + 1):
            values = {f"v_{column}": value_of(column, kind, number) for column, kind in columns.items()}
            into, given = ", ".join(columns), ", ".join(f":{name}" for name in values)
            await database.fetch_text(f"INSERT INTO {table} ({into}) VALUES ({given})", **values)
    await database.close()


def value_of(column: str, kind: str, number: int) -> Any:
    """What is in this column of the row."""
    return {"INTEGER": number, "TEXT": f"{column} {number} ü", "REAL": number + 0.5, "BLOB": bytes([number, 0])}[kind]


def tables_of(path: Path) -> dict[str, dict[str, str]]:
    """The tables of a SQLite file with the types of their columns, without the one that migrations keep."""
    connection = sqlite3.connect(path)
    listed = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('schema_migrations')"
    tables = [name for (name,) in connection.execute(f"{listed} AND name NOT LIKE 'sqlite_%' ORDER BY name")]
    found = {table: {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({table})")} for table in tables}
    connection.close()
    return found


def without_commands(dump: str) -> str:
    """The statements of a dump, without what is said to `psql` only."""
    return "".join(
        f"{line}\n" for line in dump.splitlines() if line and not line.startswith(("\\", "--", "SET ", "SELECT pg_"))
    )


if __name__ == "__main__":
    main()
