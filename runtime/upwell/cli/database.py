"""`upwell database`: the store of what has run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from upwell.cli.group import group
from upwell.cli.output import confirm, note, say, show, show_fields, size_text

if TYPE_CHECKING:
    from upwell.cli.options import Output, Yes
    from upwell.journal.database import Database

app = group(
    "database",
    "upwell database size",
    "upwell database backup ~/upwell-backup.db",
    "upwell database upgrade",
    more="These work on the database itself (UPWELL_DATABASE_URL, or upwell.db in UPWELL_HOME).",
)


@app.command
async def size(
    *,
    tables: bool = False,
    output: Output = "table",
) -> None:
    """Say how much is stored.

    Args:
        tables: By table, too, for which SQLite reads the whole file.
    """
    from upwell.journal.maintenance import size_of

    async with _database() as database:
        found = await size_of(database, with_tables=tables)
    fields: dict[str, object] = {
        "place": found.place,
        "schema": found.schema,
        "flow runs": f"{found.flow_runs:,}",
        "task runs": f"{found.task_runs:,}",
        "size": size_text(found.bytes),
        "of which free": size_text(found.free_bytes),
    }
    show_fields(found, fields, output)
    if tables and output == "table":
        say("")
        show(
            found.tables,
            [
                ("table", lambda table: table.name),
                ("rows", lambda table: f"{table.rows:,}"),
                ("size", lambda table: size_text(table.bytes)),
            ],
            output,
        )


@app.command
async def upgrade() -> None:
    """Bring the schema of the database up to date. It is done without being asked for, too, by whoever writes next."""
    from upwell.journal.maintenance import upgrade as bring_up_to_date

    async with _database(migrated=False) as database:
        steps = await bring_up_to_date(database)
        for step in steps:
            say(f"applied {step}")
        if not steps:
            say(f"{database.place} is up to date.")


@app.command
async def backup(to: Path, /) -> None:
    """Copy the database into a new file, while others use it. For PostgreSQL use pg_dump.

    Args:
        to: The file to make.
    """
    from upwell.journal.maintenance import back_up

    async with _database() as database:
        written = await back_up(database, to)
    say(f"{to}: {size_text(written)}")
    note("Large results lie beside the database, in the folder `results` in UPWELL_HOME: copy that, too.")


@app.command
async def vacuum(*, yes: Yes = False) -> None:
    """Make the database as small as it can be. Who writes to a SQLite file meanwhile waits."""
    from upwell.journal.maintenance import vacuum as make_small

    confirm("Runs that write meanwhile have to wait. Vacuum now?", yes)
    async with _database() as database:
        before, after = await make_small(database)
    say(f"{size_text(before)} -> {size_text(after)}")


@asynccontextmanager
async def _database(*, migrated: bool = True) -> AsyncGenerator[Database]:
    """The database that the settings name, opened."""
    from upwell.composition import make_database
    from upwell.core.errors import ConfigurationError
    from upwell.journal.migrations import migrate
    from upwell.settings import current

    if current().journal == "memory":
        raise ConfigurationError("UPWELL_JOURNAL=memory keeps no database: there is nothing to do.")
    if current().api_url:
        note("UPWELL_API_URL is set: the server there may have another database than this one.")
    database = make_database()
    await database.open()
    try:
        if migrated:
            await migrate(database)
        yield database
    finally:
        await database.close()
