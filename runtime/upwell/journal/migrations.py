"""The schema of a store: brought to this version in place, by exactly one of many processes."""

from __future__ import annotations

from collections.abc import Sequence

from upwell.engine.clock import clock
from upwell.journal.database import Database, Session, StoreTooNew
from upwell.journal.sql import Dialect, Migration, migrations, newest_schema, schema_in_words_of

_LEDGER = """CREATE TABLE IF NOT EXISTS schema_migrations (
    number   INTEGER NOT NULL PRIMARY KEY,
    name     TEXT    NOT NULL,
    applied  INTEGER NOT NULL
)"""


async def migrate(database: Database, steps: Sequence[Migration] | None = None) -> list[int]:
    """Apply the steps that this store has not, all or none: what fails leaves the store to the version that it is of.

    Args:
        steps: all steps there are, oldest first; unless said, those of this version.

    Returns:
        The numbers of the steps that were applied.

    Raises:
        StoreTooNew: the store has steps that this version does not know.
    """
    if steps is None and await version_of(database, database) == newest_schema():
        return []  # as nearly always: what the steps say need not be read
    steps = migrations(database.dialect) if steps is None else steps
    if not await _missing(database, database, steps):
        return []
    async with database.transaction() as session:
        await _lock(database, session)
        missing = await _missing(database, session, steps)  # others may have been faster
        if missing:
            await database.execute_script([schema_in_words_of(database.dialect, _LEDGER)], session)
        for step in missing:
            await _apply(database, session, step)
    return [step.number for step in missing]


async def _missing(database: Database, session: Session, steps: Sequence[Migration]) -> list[Migration]:
    version = await version_of(database, session)
    if version > steps[-1].number:
        raise StoreTooNew(
            f"The store {database.place} was written by a newer upwell: its schema is {version}, and this "
            f"version knows {steps[-1].number}. Update upwell, or use another store (UPWELL_DATABASE_URL)."
        )
    return [step for step in steps if step.number > version]


async def _apply(database: Database, session: Session, step: Migration) -> None:
    await database.execute_script(step.statements, session)
    await session.fetch_text(
        "INSERT INTO schema_migrations (number, name, applied) VALUES (:number, :name, :applied)",
        number=step.number,
        name=step.name,
        applied=int(clock().time() * 1e6),
    )


async def version_of(database: Database, session: Session) -> int:
    """The number of the last step that was applied; 0 for a new store."""
    catalogue = {
        Dialect.SQLITE: "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'",
        Dialect.POSTGRES: "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() "
        "AND tablename = 'schema_migrations'",
    }
    if (await session.fetch_text(catalogue[database.dialect]))[0][0] == 0:
        return 0
    rows = await session.fetch_text("SELECT coalesce(max(number), 0) FROM schema_migrations")
    return int(rows[0][0])


async def _lock(database: Database, session: Session) -> None:
    """Others who migrate wait here. SQLite's transactions have the file to themselves anyway."""
    if database.dialect is Dialect.POSTGRES:
        await session.fetch_text("SELECT pg_advisory_xact_lock(8093572617)")
